"""A task file is the only code of the user's that runs, and what goes wrong in it is told with its place."""

import pytest

from compressor.errors import TaskError
from compressor.task.loading import load
from tests.task.conftest import BODY


def test_the_first_task_of_the_file_is_taken_and_a_name_chooses_another(write):
    file = write(BODY + "\n    class Second(Tiny):\n        metric = 'f1'\n")
    assert load(file).name == "Tiny"
    assert load(f"{file}:Second").metric == "f1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "error: task.py defines no task\n --> task.py\nhint: subclass `compressor.Task` in it"),
        (
            "import nowhere_to_be_found\n",
            "error: task file raised ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"
            " --> task.py:1\n1 | import nowhere_to_be_found\n  | ^\nhint: fix the task file",
        ),
        (
            "class\n",
            "error: task file is not valid Python: invalid syntax\n --> task.py:1:6\n1 | class\n  |      ^",
        ),
        (
            BODY.replace("def loss", "def loose").replace("def evaluate", "def assess"),
            "error: task `Tiny` has no `evaluate`, `loss`\n --> task.py:5\n"
            "hint: a task needs `model`, `example`, `batches`, `loss` and `evaluate`",
        ),
    ],
)
def test_a_file_without_a_whole_task_is_refused(write, text, message):
    with pytest.raises(TaskError) as caught:
        load(write(text))
    assert caught.value.render() == message


def test_a_missing_file_and_a_wrong_name_are_refused(write):
    with pytest.raises(TaskError, match=r"no task file at elsewhere\.py"):
        load("elsewhere.py")
    with pytest.raises(TaskError) as caught:
        load(write(BODY) + ":Tinny")
    assert caught.value.render() == "error: task.py has no task named `Tinny`\n --> task.py\nhint: it has `Tiny`"

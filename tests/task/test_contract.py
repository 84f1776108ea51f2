"""A task file is the only code of the user's that runs, and what goes wrong in it is told with its place."""

import textwrap

import pytest
import torch

from compressor.errors import TaskError
from compressor.task.loading import load

BODY = """
    import torch
    from compressor import Task

    class Tiny(Task):
        def model(self):
            return torch.nn.Linear(3, 2)
        def example(self, batch, length):
            return (torch.zeros(batch, length, 3),)
        def batches(self, generator):
            yield (torch.zeros(2, 5, 3),), torch.zeros(2)
        def loss(self, outputs, target):
            return outputs.mean()
        def evaluate(self, forward):
            return 0.5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "task.py").write_text(textwrap.dedent(text))
        return "task.py"

    return write


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


def test_what_a_function_of_the_task_raises_names_its_line(write):
    task = load(write(BODY.replace("return 0.5", "return 1 / 0")))
    with pytest.raises(TaskError) as caught:
        task.evaluate(lambda x: x)
    assert "`evaluate` of Tiny raised ZeroDivisionError: division by zero\n --> task.py:15" in caught.value.render()


@pytest.mark.parametrize(
    ("old", "new", "call", "message"),
    [
        ("return torch.nn.Linear(3, 2)", "return 3", "model", "must give a torch.nn.Module, not int"),
        ("return (torch.zeros(batch, length, 3),)", "return [1]", "example", "gives no tensor"),
        (
            "return (torch.zeros(batch, length, 3),)",
            "return (torch.zeros(1),) * 2",
            "example",
            "too many positional arguments",
        ),
    ],
)
def test_a_function_that_gives_the_wrong_thing_is_refused(write, old, new, call, message):
    task = load(write(BODY.replace(old, new)))
    with pytest.raises(TaskError, match=message):
        task.model() if call == "model" else task.example(2, 3)


def test_batches_that_are_no_pairs_are_refused(write):
    task = load(write(BODY.replace("yield (torch.zeros(2, 5, 3),), torch.zeros(2)", "yield torch.zeros(2, 5, 3)")))
    with pytest.raises(TaskError, match="must give pairs"):
        list(task.batches(torch.Generator()))


def test_weights_that_are_not_finite_are_refused_by_name(write):
    text = BODY.replace(
        "return torch.nn.Linear(3, 2)", "m = torch.nn.Linear(3, 2); m.weight.data[1, 1] = float('nan'); return m"
    )
    with pytest.raises(TaskError, match="the model's weights are not finite: `weight`"):
        load(write(text)).model()


def test_lengths_out_of_order_are_refused(write):
    with pytest.raises(TaskError, match="needs 1 <= min_length <= length <= max_length, not 9, 5, 20"):
        load(
            write(
                BODY.replace(
                    "class Tiny(Task):", "class Tiny(Task):\n        min_length, length, max_length = 9, 5, 20"
                )
            )
        )


ATTENTION = BODY.replace("from compressor import Task", "from compressor import AttentionParts, Task").replace(
    "class Tiny(Task):",
    "class Tiny(Task):\n        attention = {'*': AttentionParts('q', 'k', 'v', 'o', heads='h')}",
)


def test_attention_that_the_task_names_has_to_be_in_the_model(write):
    with pytest.raises(TaskError) as caught:
        load(write(ATTENTION)).model()
    assert caught.value.render() == (
        "error: the model, a `Linear`, has no `q` (`query` is `q`)\n --> task.py\n"
        "hint: look it up in the module's `__init__`"
    )


def test_attention_has_to_map_patterns_to_parts(write):
    with pytest.raises(TaskError, match="`attention` of Tiny must map globs of module names to AttentionParts"):
        load(write(BODY + "        attention = {'*': 'query'}\n"))


def test_a_pattern_of_attention_that_is_no_regular_expression_is_refused(write):
    with pytest.raises(TaskError, match=r"`attention` of Tiny: `re:\[` is not a regular expression"):
        load(write(ATTENTION.replace("{'*'", "{'re:['")))

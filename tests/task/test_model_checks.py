"""What a task says of its model has to be true of it."""

import pytest

from compressor.errors import TaskError
from compressor.task.loading import load
from tests.task.conftest import BODY

ATTENTION = BODY.replace("from compressor import Task", "from compressor import AttentionParts, Task").replace(
    "class Tiny(Task):",
    "class Tiny(Task):\n        attention = {'*': AttentionParts('q', 'k', 'v', 'o', heads='h')}",
)


def test_weights_that_are_not_finite_are_refused_by_name(write):
    text = BODY.replace(
        "return torch.nn.Linear(3, 2)", "m = torch.nn.Linear(3, 2); m.weight.data[1, 1] = float('nan'); return m"
    )
    with pytest.raises(TaskError, match="the model's weights are not finite: `weight`"):
        load(write(text)).model()


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

"""Models in styles that nobody listed lose half of their units, and what is left is right by the numbers alone."""

import pytest
import torch

from benchmarks.kinds.kind import Kind, KindTask
from benchmarks.peer_check import differs, distinct
from benchmarks.peers import pruned_by_us
from compressor.task.guard import GuardedTask
from tests.surgery.strangers import STRANGERS, FastWeights

SIZES = ((2, 7), (3, 9), (1, 4))


def doubled(inputs):
    return tuple(part.double() if part.is_floating_point() else part for part in inputs)


class Doubled(GuardedTask):
    """With inputs in float64."""

    def __init__(self, task):
        self.__dict__.update(task.__dict__)

    def example(self, *sizes, **named):
        return doubled(super().example(*sizes, **named))


@pytest.mark.parametrize("kind", STRANGERS, ids=lambda kind: kind.__name__)
def test_half_of_the_units_go_and_the_rest_is_right(kind):
    task = GuardedTask(KindTask(Kind(kind.__name__, kind, STRANGERS[kind])), __file__)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = distinct(task.model())
        examples = [doubled(task.example(*sizes)) for sizes in SIZES]
        smaller = pruned_by_us(Doubled(task), model)
    assert differs(model, smaller, examples) == ""
    before, after = (sum(part.numel() for part in each.parameters()) for each in (model, smaller))
    assert after < (0.8 if kind is FastWeights else 0.5) * before

"""Further open axes: found from the arguments of `example`, varied on their own, checked."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compressor import Task
from compressor.errors import TaskError, UsageError
from compressor.measure import parity
from compressor.measure.diagnosis import table
from compressor.task.fixed_axes import fixed
from compressor.task.guard import GuardedTask
from compressor.task.sizes import further_sizes

FEATURES, HEIGHT = 3, 5


class Aligner(nn.Module):
    """Two sequences of their own lengths."""

    def forward(self, source, target):
        return target @ source.transpose(1, 2)  # (B, U, T)


class Aligning(Task):
    length, max_length = 8, 20
    ranges = {}

    def model(self):
        return Aligner()

    def example(self, batch, length, target_length=4):
        return torch.randn(batch, length, FEATURES), torch.randn(batch, target_length, FEATURES)

    def batches(self, generator):
        yield self.example(2, 8), None

    def loss(self, outputs, target):
        return outputs.mean()

    def evaluate(self, forward):
        return 0.5


class Reader(nn.Module):
    """A picture whose height is fixed and whose width is not; it takes no width below 3."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=(1, 0))

    def forward(self, picture):
        return self.conv(picture).flatten(1, 2)


class Reading(Aligning):
    min_length = max_length = length = 1

    def model(self):
        return Reader()

    def example(self, batch, length, width=9):
        return torch.randn(batch, 1, HEIGHT, width)


def guarded(base, **changes):
    return GuardedTask(type("Changed", (base,), changes)(), __file__)


def test_an_argument_with_a_typical_size_is_an_open_axis_of_that_name():
    task = guarded(Aligning)
    assert task.inputs == {"source": {0: "batch", 1: "time"}, "target": {0: "batch", 1: "target_length"}}
    assert task.outputs == {"output": {0: "batch", 1: "target_length", 2: "time"}}
    assert task.ranges == {"target_length": (1, 9)}


def test_a_size_that_the_model_does_not_take_is_out_of_the_range_and_other_sizes_get_names_of_their_own():
    task = guarded(Reading)
    assert task.inputs == {"picture": {0: "batch", 3: "width"}}
    assert task.outputs == {"output": {0: "batch", 2: "output_2"}}
    assert task.ranges == {"width": (9, 19)}


def test_a_declared_range_is_taken_and_a_number_that_is_no_size_is_left_alone():
    def example(self, batch, length, width=9, seed=3, scale=2.0):
        return torch.randn(batch, 1, HEIGHT, width)

    task = guarded(Reading, example=example, ranges={"width": (5, 40)})
    assert task.ranges == {"width": (5, 40)}
    assert further_sizes(task.task.example) == {"width": 9, "seed": 3}


def test_every_size_of_a_further_axis_is_compared_and_not_in_step_with_the_lengths():
    task = guarded(Aligning)
    found = [parity.further_sizes(task, index)["target_length"] for index in range(4)]
    assert sorted(found) == [1, 3, 7, 9]
    model, generator = task.model(), torch.Generator().manual_seed(0)
    compared = parity.check(model, model, task, atol=1e-5, rtol=1e-4, generator=generator)
    assert {point.sizes["target_length"] for point in compared.points} == {1, 3, 7, 9}
    assert "target_length" in table(compared)


def test_a_file_that_is_right_at_one_size_only_does_not_pass():
    task, generator = guarded(Aligning), torch.Generator().manual_seed(0)
    model = task.model()
    compared = parity.check(model, lambda s, t: model(s, t[:, :4]), task, atol=1e-5, rtol=1e-4, generator=generator)
    assert not compared.passed


def test_a_file_may_fix_it():
    view = fixed(guarded(Aligning), {"target_length": 3})
    assert view.example(2, 7)[1].shape == (2, 3, FEATURES)
    assert view.outputs == {"output": {0: "batch", 2: "time"}}
    assert view.ranges == {}
    with pytest.raises(UsageError, match="`shapes` fixes `target_length` to 10, but the task's sizes are 1 to 9"):
        fixed(guarded(Aligning), {"target_length": 10})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": {"width": (1, 9)}}, "`ranges` names `width`, which `example` does not take"),
        ({"ranges": {"target_length": (5, 9)}}, r"`ranges` gives \(5, 9\) for `target_length`, whose default .* is 4"),
        ({"ranges": {"target_length": 9}}, "`ranges` gives 9 for `target_length`"),
        ({"ranges": 9}, "`ranges` must map the name of a size"),
        (
            {"example": lambda self, batch, length, time=4: torch.randn(batch, time, FEATURES)},
            "`example` calls a further size `time`",
        ),
        (
            {
                "example": lambda self, batch, length, more=1: (
                    torch.randn(batch, length, FEATURES),
                    torch.randn(batch, more, FEATURES),
                )
            },
            "`example` gives `more` the size 1 by default",
        ),
        (
            {
                "example": lambda self, batch, length, more=4: (torch.randn(batch, length, FEATURES),) * 2,
                "ranges": {"more": (2, 9)},
            },
            "`ranges` names `more`, but no tensor's size follows it",
        ),
        (
            {
                "inputs": {"source": {0: "batch", 1: "time"}, "target": {0: "batch", 2: "target_length"}},
            },
            "`inputs` calls axis 2 of `target` `target_length`, but at sizes of `target_length` 4 and 5 its shapes",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(TaskError, match=message):
        guarded(Aligning, **changes).inputs  # noqa: B018 the model is called for it


def test_points_need_no_further_axis():
    assert parity.further_sizes(SimpleNamespace(ranges={}), 3) == {}

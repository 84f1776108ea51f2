"""Limits of a step that act: bisection on its ratio, within a number of tries."""

import pytest
import torch

from compressor.methods.base import Context, State
from compressor.methods.heads import Heads
from compressor.methods.low_rank_attention import LowRankAttention
from compressor.methods.magnitude import Magnitude
from compressor.pipeline.backtracking import carry_out
from compressor.progress import Silent
from compressor.task.contract import Task
from tests.nets import Scores


class Units(Task):
    """Loses a hundredth of its metric with each unit."""

    inputs = {"x": {0: "batch", 1: "time"}}
    outputs = {"y": {0: "batch", 1: "time"}}
    length, max_length = 5, 9

    def model(self):
        return Scores(3, 16, 2).eval()

    def example(self, batch, length):
        return (torch.randn(batch, length, 3, generator=torch.Generator().manual_seed(0)),)

    def batches(self, generator):
        yield (torch.randn(4, 5, 3, generator=generator),), None

    def loss(self, outputs, target):
        return outputs.square().mean()

    def evaluate(self, forward):
        return forward.submodule("rnn")(torch.zeros(1, 2, 3))[0].shape[-1] / 100


def carried(limits, ratio=0.75):
    torch.manual_seed(0)
    task = Units()
    model = task.model()
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    step = Magnitude.model_validate(
        {"prune": "units", "ratio": ratio, "compensate": False, "limits": limits}, strict=False
    )
    return carry_out(step, State(model), context), context


def units(done):
    return done.result.state.model.rnn.hidden_size


def test_a_step_within_its_limit_is_carried_out_as_it_is():
    done, _ = carried({"metric_drop": 0.12, "on_miss": "backtrack"})
    assert units(done) == 4
    assert done.notes == ("It loses 0.12 of the metric; its limit is 0.12.",)


def test_a_miss_is_only_told_unless_it_is_to_backtrack():
    done, _ = carried({"metric_drop": 0.05})
    assert units(done) == 4
    assert done.notes == ("It loses 0.12 of the metric, more than its limit of 0.05.",)


def test_backtracking_ends_at_the_largest_ratio_that_holds():
    done, _ = carried({"metric_drop": 0.05, "on_miss": "backtrack", "tries": 5})
    assert units(done) == 11
    assert done.step.ratio == pytest.approx(0.75 * 0.46875)
    assert "0.5 of it loses 0.06" in done.notes[1]
    assert "Kept: 0.469 of it." in done.notes[1]


def test_tries_are_a_budget():
    done, _ = carried({"metric_drop": 0.05, "on_miss": "backtrack", "tries": 1})
    assert units(done) == 10
    assert "None held; kept: 0.5 of it." in done.notes[1]


def test_the_random_numbers_after_it_are_those_of_the_attempt_that_is_kept():
    _, alone = carried({"metric_drop": 0.12})
    _, after = carried({"metric_drop": 0.05, "on_miss": "backtrack"})
    assert torch.equal(alone.generator.get_state(), after.generator.get_state())


@pytest.mark.parametrize(
    ("step", "milder"),
    [
        (Magnitude(prune="units", ratios={"a": 0.5, "b": 0.25}), {"ratios": {"a": 0.25, "b": 0.125}}),
        (Magnitude(prune="units", count=5), {"count": 2}),
        (Magnitude(prune="weights", sparsity=0.8), {"sparsity": 0.4}),
        (Heads(ratio=0.5), {"ratio": 0.25}),
        (Heads(keep=2), {"keep": 4}),
        (LowRankAttention(parameters=0.5), {"parameters": 0.75}),
        (LowRankAttention(rank=8), {"rank": 16}),
    ],
)
def test_half_of_a_step_takes_half_as_much(step, milder):
    half = step.milder(0.5)
    assert {name: getattr(half, name) for name in milder} == milder

import numpy as np
import pytest
import torch

from compressor.errors import TaskError
from compressor.measure import accuracy
from compressor.task.contract import Evaluation


class Returning:
    """A task whose `evaluate` returns what it was given."""

    metric = "accuracy"
    higher_is_better = True

    def __init__(self, evaluate=None, validate=None):
        self.returned = {"evaluate": evaluate, "validate": validate}

    def evaluate(self, forward):
        return self.returned["evaluate"]

    def validate(self, forward):
        return self.returned["validate"]


def score(returned, **options):
    return accuracy.score(Returning(returned), forward=None, **options)


@pytest.mark.parametrize("returned", [0.5, 1, np.float32(0.5), torch.tensor(0.5), torch.tensor(3), Evaluation(0.25)])
def test_a_plain_number_is_the_metric_without_an_interval(returned):
    expected = returned.value if isinstance(returned, Evaluation) else float(returned)
    found = score(returned)
    assert (found.value, found.interval, found.samples) == (expected, None, None)


def test_per_sample_scores_give_mean_interval_and_count():
    found = score(torch.tensor([True, False, True, True, False]))
    assert found.value == pytest.approx(0.6)
    assert found.samples == 5
    assert found.interval.low < 0.6 < found.interval.high


def test_an_evaluation_carries_parts_and_its_mean():
    found = score(Evaluation(per_sample=torch.tensor([0.0, 1.0, 1.0]), parts={"class 1": 0.5, "class 2": 1}))
    assert found.value == pytest.approx(2 / 3)
    assert found.parts == {"class 1": 0.5, "class 2": 1.0}


def test_groups_by_any_name_are_counted_and_resampled_as_wholes():
    scores = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    found = score(Evaluation(per_sample=scores, groups=["b", "b", "a", "a", "c", "c"]))
    assert (found.samples, found.groups) == (6, 3)
    assert found.interval.low < score(scores).interval.low


def test_validation_calls_validate():
    task = Returning(evaluate=0.1, validate=0.9)
    assert accuracy.score(task, forward=None, validation=True).value == 0.9


def test_gradients_are_off_and_forward_is_handed_over():
    class Task(Returning):
        def evaluate(self, forward):
            return float(forward(torch.ones(3, requires_grad=True)).requires_grad)

    assert accuracy.score(Task(), torch.neg).value == 0.0


def test_the_same_scores_give_the_same_interval():
    scores = torch.rand(97, generator=torch.Generator().manual_seed(0))
    assert score(scores) == score(scores)
    assert score(scores, confidence=0.5).interval.confidence == 0.5


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "`evaluate` is None, not a metric"),
        ("0.9", "`evaluate` is str '0.9', not a metric"),
        (True, "`evaluate` is bool 'True', not a metric"),
        (float("nan"), "`evaluate` is nan"),
        (torch.tensor(float("inf")), "`evaluate` is inf"),
        (torch.zeros(2, 3), r"`evaluate` is a tensor of shape \(2, 3\)"),
        (torch.zeros(0), "`evaluate`'s per-sample scores are empty"),
        (torch.tensor([1.0, float("nan")]), "hold 1 of 2 that are NaN or infinite"),
        (Evaluation(), "`value` of `evaluate`'s Evaluation is None"),
        (Evaluation(per_sample=[1.0, 0.0]), "per-sample scores are list"),
        (Evaluation(per_sample=torch.zeros(3), groups=[1, 2]), "names 2 samples, beside 3 per-sample scores"),
        (Evaluation(0.5, groups=[1, 2]), "names 2 samples, beside no per-sample scores"),
        (Evaluation(0.5, parts={"a": float("nan")}), "part `a` of `evaluate`'s Evaluation is nan"),
        (Evaluation(0.9, per_sample=torch.tensor([0.0, 1.0])), "is 0.9, but the mean of its `per_sample` is 0.5"),
    ],
)
def test_what_is_not_a_metric_is_refused_with_what_came_back(returned, message):
    with pytest.raises(TaskError, match=message):
        score(returned)


def examine(scores, *, higher_is_better=True):
    task = Returning(scores)
    task.higher_is_better = higher_is_better
    return accuracy.examine(task, forward=None)


def test_a_paired_interval_is_tighter_than_the_two_scores_apart():
    draw = np.random.default_rng(0)
    before = draw.random(211)
    after = before - 0.01 + draw.normal(0, 0.005, 211)
    first, second = examine(torch.tensor(before)), examine(torch.tensor(after))
    found = accuracy.drop(first, second)
    assert found.value == pytest.approx(0.01, abs=0.002)
    assert 0 < found.interval.low < found.value < found.interval.high < 0.02
    assert first.score.interval.high - first.score.interval.low > 0.05


def test_a_drop_is_positive_when_an_error_rate_rises():
    found = accuracy.drop(examine(0.07, higher_is_better=False), examine(0.09, higher_is_better=False))
    assert found.value == pytest.approx(0.02)
    assert found.interval is None


def test_scores_over_different_samples_are_not_paired():
    found = accuracy.drop(examine(torch.tensor([0.0, 1.0])), examine(torch.tensor([0.0, 1.0, 1.0])))
    assert found.interval is None


def test_the_interval_of_a_drop_has_the_sign_of_the_metric():
    draw = np.random.default_rng(0)
    before = draw.random(211)
    worse = before + 0.01 + draw.normal(0, 0.005, 211)
    for higher_is_better, low in ((False, 0.0), (True, -0.02)):
        first, second = (examine(torch.tensor(one), higher_is_better=higher_is_better) for one in (before, worse))
        found = accuracy.drop(first, second)
        assert low < found.interval.low < found.value < found.interval.high < low + 0.02


def test_the_interval_of_a_drop_has_the_confidence_that_is_asked_for():
    draw = np.random.default_rng(1)
    first, second = (examine(torch.tensor(draw.random(97))) for _ in range(2))
    wide, narrow = (accuracy.drop(first, second, confidence=part).interval for part in (0.95, 0.5))
    assert (wide.confidence, narrow.confidence) == (0.95, 0.5)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)

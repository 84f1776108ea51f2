"""The points that are tried first: how much can go is found by bisection of what the last one has lost."""

from dataclasses import replace

import pytest

from compressor.report import Drop
from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.opening import opening
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.parts import Removal
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import Record, trails
from compressor.studies.search.retraining import Retraining
from compressor.studies.search.space import Space

UNITS = Removal("units", (("rnn",),), ((64,),), None)
RETRAINING = Retraining(16, 160, 4, "kl", ("1.0",), rounds=("int4", "mixed"))
WORDS = ("float32", "float16", "int8", "int4", "mixed")


def space(parts=(UNITS,), retraining=RETRAINING, **goals):
    return Space(Goals(**goals), parts, retraining, WORDS, ())


def opened(own, drop_of, size_of=lambda point: 20_000, error_of=lambda point: None):
    """All points of an opening with their rungs, by what each loses."""
    records = []
    while True:
        points = trails(records)
        found = estimates(points, own.goals, Graphs(0), own.trains)
        first = opening(own, points, found)
        if first is None:
            return [(record.point, record.rung) for record in records]
        point, rung = first
        lost = Drop(value=drop_of(point))
        outcome = Outcome(drop=lost, weight_bytes=size_of(point), outputs_error=error_of(point))
        records.append(Record(len(records), len(records), rung, point, "done", outcome, own.precision(point), "seed"))


def amounts(points):
    """Of the bisection, in its order."""
    return list(dict.fromkeys(point["units"] for point, rung in points if rung == 1 and point["quantize"] == "no"))


@pytest.mark.parametrize("most", [0.05, 0.2, 0.33, 0.47, 0.6, 0.8, 0.94])
def test_how_much_can_go_is_known_to_a_sixteenth_of_all(most):
    own = space(max_drop=0.01)
    points = opened(own, lambda point: 0.0 if point["units"] <= most else 1.0)
    recipes = [own.recipe(point, 0).sha256() for point, _ in points]
    assert len(set(recipes)) == len(recipes)
    tried = amounts(points)
    assert len(tried) == 4
    can = [amount for amount in tried if amount <= most]
    cannot = [amount for amount in tried if amount > most]
    assert min(cannot, default=own.removing(1.0)["units"]) - max(can, default=0.0) < 0.07
    assert {point["units"] for point, rung in points if rung == 0 and point["retrain"] == "yes"} == {
        0.0,
        max(can, default=min(cannot, default=0.0)),
    }


def test_the_amount_that_was_found_is_tried_in_fewer_bits_and_trained_in_those():
    own = space(max_drop=0.01)
    trains, opened_points = own.rounds_in_training, opened(own, lambda point: 0.0 if point["units"] < 0.3 else 1.0)
    trained = [(point["precision"], point["units"] > 0, rung) for point, rung in opened_points if trains(point)]
    assert trained == [("int4", False, 1), ("int4", True, 1), ("mixed", False, 1), ("mixed", True, 1)]
    recipes = [own.recipe(point, 0).sha256() for point, _ in opened_points]
    assert len(set(recipes)) == len(recipes)
    assert {point["bits"] for point, _ in opened_points if point["precision"] == "mixed"} == {4.5, 3.5}


def test_points_that_were_given_come_first_and_begin_with_a_training_if_they_are_trained_in_few_bits():
    plain = space(max_drop=0.01)
    given = [plain.at_rest | {"units": 20.0, "precision": "int4", "quantize": word} for word in ("yes", "no")]
    opened_points = opened(replace(plain, first=tuple(given)), lambda point: 0.0)
    assert opened_points[:2] == [(given[0], 1), (given[1], 0)]


def test_without_a_goal_for_the_loss_as_much_goes_as_the_other_goals_need():
    own = space(max_bytes=10_000)

    def size(point):
        return round(20_000 * (1 - point["units"]))

    points = opened(own, lambda point: 1.0, size)
    tried = amounts(points)
    reached = [
        point["units"] for point, rung in points if rung == 1 and point["units"] and own.goals.max_bytes >= size(point)
    ]
    assert min(reached) - max(set(tried) - set(reached)) < 0.07
    assert {point["units"] for point, rung in points if rung == 0 and point["retrain"] == "yes"} == {0.0, min(reached)}


def test_no_loss_allowed_is_a_goal_too():
    tried = amounts(opened(space(max_drop=0.0), lambda point: point["units"]))
    assert tried == sorted(tried, reverse=True)


def test_a_model_of_which_nothing_can_go_is_stored_otherwise_and_trained_in_few_bits_only():
    own = space(parts=(), max_drop=0.01)
    points = opened(own, lambda point: 0.0)
    assert {rung for point, rung in points if not own.trains(point)} == {0}
    assert len({own.recipe(point, 0).sha256() for point, _ in points}) == len(points)


def test_without_retraining_the_bisection_begins_without_training():
    own = space(retraining=None, max_drop=0.01)
    assert {rung for _, rung in opened(own, lambda point: point["units"])} == {0}


def test_the_next_amount_waits_for_the_result_of_another_worker():
    own = space(max_drop=0.01)
    done = opened(own, lambda point: 0.0)
    rest = [point for point, rung in done if rung == 0 and point["units"] == 0.0 and not own.trains(point)]
    records = [
        Record(number, number, 0, point, "done", Outcome(drop=Drop(value=0.0), weight_bytes=9), own.precision(point))
        for number, point in enumerate(rest)
    ]
    half, _ = opening(own, trails(records), [])
    records.append(Record(99, 99, 1, half, "running", None, own.precision(half)))
    assert opening(own, trails(records), []) is None


TAUGHT = Retraining(16, 160, 4, "kl", ("0.5", "0.9", "1.0"), rounds=("int4", "mixed"))


def raised(own, point):
    """How many times the learning rate was raised by a quarter of its range, from the usual one for so many units."""
    knob = next(knob for knob in own.knobs if knob.name == "lr")
    usual = own.at(point["units"] / 0.95, 1.0, str(point["precision"]))
    return round((knob.place(point["lr"]) - knob.place(usual["lr"])) / 0.25)


@pytest.mark.parametrize("best", [0, 1, 2])
@pytest.mark.parametrize("share", ["0.5", "0.9", "1.0"])
def test_what_was_removed_is_trained_with_the_rate_and_teaching_that_lose_least(best, share):
    own = space(retraining=TAUGHT, max_drop=0.01)

    def drop(point):
        return (
            1.0
            if point["units"] > 0.3
            else 0.002 * abs(raised(own, point) - best) + 0.001 * (point["distill"] != share)
        )

    points = [point for point, _ in opened(own, drop)]
    last = [point for point in points if point["units"] and own.trains(point)][-1]
    assert (raised(own, last), last["distill"]) == (best, share)
    kept = [point for point in points if not point["units"] and own.rounds_in_training(point)]
    assert {raised(own, point) for point in kept} == {0}  # near a minimum: no higher rate
    assert {point["distill"] for point in kept} == {share}


def test_what_the_metric_does_not_tell_apart_the_outputs_do():
    own = space(retraining=TAUGHT, max_drop=0.01)
    points = opened(
        own, lambda point: float(point["units"] > 0.3), error_of=lambda point: 1.0 - 0.1 * raised(own, point)
    )
    assert raised(own, [point for point, _ in points if own.trains(point)][-1]) == 2


def test_a_model_of_which_nothing_can_go_learns_in_the_bits_of_its_file_as_loses_least():
    own = space(retraining=TAUGHT, max_drop=0.01)
    points = opened(
        own, lambda point: 1.0 if point["units"] else 0.001 * ((point["distill"] != "1.0") + (raised(own, point) != 1))
    )
    trained = [point for point, _ in points if own.rounds_in_training(point) and not point["units"]]
    assert {point["precision"] for point in trained} == {"int4", "mixed"}
    assert (trained[-1]["distill"], raised(own, trained[-1])) == ("1.0", 1)


def test_the_amount_that_was_found_and_half_of_it_are_tried_untrained():
    own = space(retraining=TAUGHT, max_drop=0.01)
    points = opened(own, lambda point: 1.0 if point["units"] > 0.3 else 0.0)
    untrained = {point["units"]: rung for point, rung in points if point["units"] and not own.trains(point)}
    most = max(untrained)
    assert most == max(amount for amount in amounts(points) if amount <= 0.3)
    assert min(untrained) == pytest.approx(most / 2, abs=0.011)
    assert set(untrained.values()) == {0}

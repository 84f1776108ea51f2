"""What a search reports of points in full: by both functions of the task, and what was measured of them."""

import pytest

from compressor.report import Drop
from compressor.studies.search.choosing import by_evaluate, costs
from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import Record, trails
from compressor.studies.search.verdicts import verdict
from compressor.studies.search.worker import View

GOALS = Goals(max_drop=0.01, max_bytes=9_000)
GRAPHS = Graphs(1000)


def record(number, rung, drop, size, unseen=None, **known):
    later = None if unseen is None else Drop(value=unseen)
    outcome = Outcome(drop=Drop(value=drop), unseen=later, bytes=size, weight_bytes=size - 1000, **known)
    return Record(number, number, rung, {"units": number / 100}, "done", outcome)


def view(*records, goals=GOALS):
    points = trails(list(records))
    return View(list(records), points, estimates(points, goals, GRAPHS), GRAPHS)


def test_the_frontier_has_the_loss_by_evaluate_and_nothing_that_was_not_measured_by_it():
    study = view(record(0, 2, 0.0, 8000, 0.02), record(1, 2, 0.01, 9000, 0.004), record(2, 2, 0.06, 2000))
    assert {one.number: one.drop for one in by_evaluate(study, GOALS)} == {0: 0.02, 1: 0.004}


def test_without_validate_the_frontier_has_the_loss_that_was_searched_by():
    study = view(record(0, 2, 0.02, 8000), record(1, 2, 0.06, 2000), record(2, 1, 0.0, 100))
    assert {one.number: one.drop for one in by_evaluate(study, GOALS)} == {0: 0.02}


def test_what_a_goal_costs_is_by_the_worse_of_both_functions():
    study = view(record(0, 2, 0.0, 8000, 0.02), record(1, 2, 0.01, 20_000, 0.004))
    reached = {cost.name: (cost.reached, cost.number) for cost in costs(study, GOALS)}
    assert reached == {"drop": (0.02, 0), "bytes": (20_000, 1)}


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (record(1, 1, 0.05, 5000), "not pursued: after a short training it loses 0.05, in full probably 0.035"),
        (record(1, 0, 0.0, 5000), "not pursued: without training it was not among the best third"),
        (record(1, 2, 0.02, 5000, 0.0), "loses 0.02 by `validate`"),
        (record(1, 2, 0.0, 5000, 0.03), "loses 0.0300 on the data that the search had not seen"),
        (record(1, 2, 0.0, 8500, 0.01), "in nothing better than 0"),
        (record(1, 2, 0.0, 8500, 0.0), "larger than 0"),
    ],
)
def test_a_verdict_says_what_was_measured_and_what_is_probable(one, said):
    study = view(record(0, 2, 0.0, 8000, 0.004), one)
    assert verdict(study, study.points[1], GOALS, chosen=0) == said


def test_a_verdict_says_that_a_latency_is_predicted():
    goals = Goals(max_drop=0.01, max_latency=2.0)
    study = view(record(1, 2, 0.06, 5000, layers_ms=5.0), goals=goals)
    assert verdict(study, study.points[0], goals, chosen=None) == "loses 0.06 and takes 5.00 ms as predicted"

"""What is best among points: frontiers, goals, what retraining gives back."""

import math

import pytest

from compressor.report import Drop, Interval
from compressor.studies.search.estimates import Estimate, estimates, factor, frontier
from compressor.studies.search.goals import Goals
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import Record, trails
from compressor.studies.search.schedule import rank

GOALS = Goals(max_drop=0.01, max_bytes=1000)


def estimate(number, drop, size, *, failed=False):
    return Estimate(number, 2, drop, size, 0.0, failed)


def record(number, rung, drop, *, point=None, size=None, weights=500, refused=None):
    outcome = Outcome(
        drop=None if refused else Drop(value=drop), bytes=size, weight_bytes=weights, refused=refused, seconds=1.0
    )
    return Record(
        number,
        number if point is None else point,
        rung,
        {"units": number / 100, "units.score": "l2"},
        "done",
        outcome,
        "int8",
    )


def test_the_frontier_is_what_nothing_beats_and_equals_count_once():
    found = [estimate(0, 0.0, 900), estimate(1, 0.02, 500), estimate(2, 0.01, 950), estimate(3, 0.0, 900)]
    assert [one.number for one in frontier(found, GOALS)] == [1, 0]


def test_a_failed_point_is_on_no_frontier_and_last():
    found = [estimate(0, 0.0, 900), estimate(1, math.inf, math.inf, failed=True)]
    assert [one.number for one in frontier(found, GOALS)] == [0]
    assert max(found, key=lambda one: rank(one, GOALS)).number == 1


def test_those_that_meet_the_goals_come_first_then_those_that_miss_least():
    found = [estimate(0, 0.03, 400), estimate(1, 0.0, 990), estimate(2, 0.005, 700), estimate(3, 0.012, 400)]
    assert [one.number for one in sorted(found, key=lambda one: rank(one, GOALS))] == [2, 1, 3, 0]


def test_a_drop_of_exactly_the_goal_meets_it():
    assert estimate(0, 0.01, 1000).meets(GOALS)
    assert estimate(0, 0.010000000000000009, 1000).meets(GOALS)
    assert not estimate(0, 0.0101, 1000).meets(GOALS)


def test_what_retraining_gives_back_is_learned_from_points_that_went_on():
    alone = trails([record(number, 0, 0.2) for number in range(4)])
    assert factor(alone, 0) == pytest.approx(0.3)
    more = [record(number, 0, 0.2) for number in range(40)]
    more += [record(100 + number, 2, 0.18, point=number, size=900) for number in range(40)]
    assert factor(trails(more), 0) == pytest.approx(0.9, abs=0.05)


def test_bytes_below_the_last_rung_are_computed_weights_and_the_graph_of_files_that_were_written():
    records = [record(0, 0, 0.1), record(1, 0, 0.1), record(2, 2, 0.0, point=1, size=800)]
    found = estimates(trails(records), GOALS, Graphs(200))
    assert [one.bytes for one in found] == [700.0, 800.0]
    learned = estimates(trails(records), GOALS, Graphs(200).with_files(records))
    assert learned[0].bytes == 800.0


def test_a_drop_that_a_small_set_does_not_tell_from_none_is_hoped_to_be_smaller():
    drop = Drop(value=0.06, interval=Interval(low=-0.02, high=0.14))
    outcome = Outcome(drop=drop, weight_bytes=500)
    (found,) = estimates(trails([Record(0, 0, 0, {}, "done", outcome, "int8")]), GOALS, Graphs(100))
    assert found.drop == pytest.approx(0.3 * 0.06)
    assert found.hopeful().drop == pytest.approx(0.3 * (0.06 - 0.16 / 3.92))


def test_what_is_not_retrained_gets_nothing_back():
    records = [record(number, 0, 0.2) for number in range(2)]
    found = estimates(trails(records), GOALS, Graphs(100), lambda point: point["units"] > 0)
    assert [one.drop for one in found] == [0.2, pytest.approx(0.3 * 0.2)]

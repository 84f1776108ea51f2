"""Which point goes on: one of three, the best first, and every other time what adds most to the frontier."""

from dataclasses import replace

from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.parts import Removal
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import trails
from compressor.studies.search.retraining import Retraining
from compressor.studies.search.schedule import promotion
from compressor.studies.search.space import Space
from tests.studies.search.test_estimates import record

UNITS = Removal("units", (("rnn",),), ((1000,),), None)
RETRAINING = Retraining(16, 160, 4, "kl", ("1.0",))
GOALS = Goals(max_drop=0.01)


def chosen(records, *, retraining=RETRAINING):
    space = Space(GOALS, (UNITS,), retraining, ("int8",), ())
    points = trails([moved(one) for one in records])
    found = estimates(points, GOALS, Graphs(100), space.trains)
    return promotion(points, found, space, 10_000.0)


def moved(one):
    """The record, with something removed in every point."""
    return replace(one, point=one.point | {"units": one.point["units"] + 0.1})


def test_nothing_goes_on_before_a_rung_has_three_results():
    assert chosen([record(0, 0, 0.0), record(1, 0, 0.0)]) is None


def test_of_three_the_best_goes_on_and_then_none_until_three_more_are_there():
    records = [record(0, 0, 0.2), record(1, 0, 0.001), record(2, 0, 0.1)]
    going = chosen(records)
    assert (going.trail.number, going.rung) == (1, 1)
    assert chosen([*records, record(3, 1, 0.001, point=1)]) is None


def test_a_point_under_way_in_a_rung_counts_as_gone_on():
    records = [record(0, 0, 0.2), record(1, 0, 0.001), record(2, 0, 0.1)]
    running = record(3, 1, 0.0, point=1)
    running = replace(running, state="running", outcome=None)
    assert chosen([*records, running]) is None


def test_the_higher_rung_is_served_first():
    records = [record(number, 0, 0.001) for number in range(9)]
    records += [record(10 + number, 1, 0.001, point=number) for number in range(3)]
    assert chosen(records).rung == 2


def test_without_training_points_go_straight_to_the_last_rung():
    assert chosen([record(number, 0, 0.001) for number in range(3)], retraining=None).rung == 2


def test_what_has_nothing_to_retrain_goes_straight_there_too():
    assert chosen([record(number - 100, 0, 0.001) for number in range(3)]).rung == 2


def test_every_other_time_what_adds_most_to_the_frontier_goes_on():
    records = [record(number, 0, 0.0, weights=100 * number) for number in range(2, 11)]
    done = record(20, 2, 0.0, size=450, weights=350)
    going = chosen([*records, record(21, 1, 0.0, point=4), done])
    assert (going.trail.number, going.rung) == (2, 1)


def test_what_cannot_be_carried_out_never_goes_on():
    records = [record(number, 0, 0.0, refused="no") for number in range(6)]
    assert chosen(records) is None

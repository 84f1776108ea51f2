"""Which point goes on: one of three, the best first, and now and then the loneliest of the frontier."""

from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import trails
from compressor.studies.search.schedule import promotion
from tests.studies.search.test_estimates import record

GOALS = Goals(max_drop=0.01)


def chosen(records, **options):
    points = trails(records)
    found = estimates(points, GOALS, Graphs(100))
    return promotion(points, found, GOALS, **{"trains": True, **options})


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
    running = type(running)(**{**vars(running), "state": "running", "outcome": None})
    assert chosen([*records, running]) is None


def test_the_higher_rung_is_served_first():
    records = [record(number, 0, 0.001) for number in range(9)]
    records += [record(10 + number, 1, 0.001, point=number) for number in range(3)]
    assert chosen(records).rung == 2


def test_without_training_points_go_straight_to_the_last_rung():
    assert chosen([record(number, 0, 0.001) for number in range(3)], trains=False).rung == 2


def test_what_cannot_be_carried_out_never_goes_on():
    records = [record(number, 0, 0.0, refused="no") for number in range(6)]
    assert chosen(records) is None

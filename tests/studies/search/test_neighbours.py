"""Small changes of the frontier, and which point is worth most."""

from dataclasses import replace

import pytest

from compressor.report import Drop
from compressor.studies.search.estimates import Estimate, estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.neighbours import changed, most_promising
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.parts import Removal
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import Record, trails
from compressor.studies.search.retraining import Retraining
from compressor.studies.search.space import Space

ORIGINAL = 100_000.0
SPACE = Space(
    Goals(max_drop=0.01),
    (Removal("units", (("rnn",),), ((64,),), None),),
    Retraining(16, 160, 4, "kl", ("1.0",)),
    ("float32", "float16", "int8", "int4", "mixed"),
    (),
)
HALF = SPACE.canonical(SPACE.at_rest | {"units": 0.5, "precision": "int8"})


def done(number, point, drop, size, origin="seed"):
    outcome = Outcome(drop=Drop(value=drop), bytes=size + 2000, weight_bytes=size)
    return Record(number, number, 2, point, "done", outcome, SPACE.precision(point), origin)


@pytest.mark.parametrize("seed", range(20))
def test_a_small_change_is_a_point_of_the_space_near_the_frontier(seed):
    points = trails([done(0, HALF, 0.0, 20_000)])
    point = changed(SPACE, estimates(points, SPACE.goals, Graphs(2000)), points, seed)
    assert SPACE.holds(point)
    assert point == changed(SPACE, estimates(points, SPACE.goals, Graphs(2000)), points, seed)
    assert abs(float(point["units"]) - 0.5) < 0.4


def test_nothing_is_changed_before_anything_was_tried_in_full():
    assert changed(SPACE, [], [], 0) is None


def test_with_an_allowed_loss_of_0_the_file_that_adds_most_is_still_known():
    space = replace(SPACE, goals=Goals(max_drop=0.0))
    full, *waiting = (Estimate(number, 2 - (number > 0), 0.0, size, 0.0) for number, size in enumerate([9e4, 8e4, 1e4]))
    assert most_promising(waiting, [full, *waiting], space, ORIGINAL).number == 2

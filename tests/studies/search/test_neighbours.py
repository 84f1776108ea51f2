"""Points beside those that were tried in full: other files of the same model, and small changes of the frontier."""

from dataclasses import replace

import pytest

from compressor.report import Drop
from compressor.studies.search.estimates import Estimate, estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.neighbours import SIBLINGS, changed, most_promising, sibling
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


def beside(*tried, space=SPACE, after=40):
    """A further file after so many others that are of no use."""
    lossy = [
        done(number, HALF | {"units": 0.9, "lr": 1e-3 + number * 1e-5}, 0.5, 4_900)
        for number in range(900, 900 + after)
    ]
    records = [*tried, *lossy]
    points = trails(records)
    graphs = Graphs(2000).with_files(records)
    return sibling(space, points, estimates(points, space.goals, graphs, space.trains), graphs, ORIGINAL)


def test_a_model_that_lost_nothing_is_stored_in_fewer_bits():
    point = beside(done(0, HALF, 0.0, 20_000))
    assert SPACE.steps(point, 2) == SPACE.steps(HALF, 2)
    assert SPACE.stored(point).word in ("int4", "mixed")


def test_a_model_that_lost_by_its_few_bits_is_stored_in_more():
    few, many = HALF | {"precision": "mixed", "bits": 3.0}, HALF | {"precision": "float16"}
    point = beside(done(0, few, 0.08, 8_000), done(1, many, 0.0, 40_000, "sibling"))
    assert SPACE.stored(point).word in ("int8", "int4", "mixed")
    assert SPACE.stored(point) != SPACE.stored(few)


def test_a_model_that_lost_far_too_much_is_left_alone():
    lossy = done(1, HALF | {"units": 0.9}, 0.5, 4_900)
    assert SPACE.steps(beside(done(0, HALF, 0.0, 20_000), lossy), 2) == SPACE.steps(HALF, 2)
    assert beside(lossy) is None


def test_a_model_has_no_more_than_so_many_files():
    records = [done(0, HALF, 0.0, 20_000)]
    while point := beside(*records):
        records.append(done(len(records), point, 0.0, 20_000 // 2 ** len(records), "sibling"))
    assert len(records) - 1 == SIBLINGS


def test_a_small_gain_has_to_wait_until_trials_give_less_on_average():
    records = [done(0, HALF | {"precision": "int4"}, 0.0, 20_000), done(1, HALF, 0.0, 40_000, "sibling")]
    assert beside(*records, after=0) is None
    assert SPACE.stored(beside(*records)).word == "mixed"


@pytest.mark.parametrize("allowed", [0.0, None])
def test_goals_without_a_scale_of_losses_have_further_files_too(allowed):
    goals = Goals(max_drop=allowed, max_bytes=50_000, minimize="bytes" if allowed == 0.0 else "drop")
    point = beside(done(0, HALF, 0.0, 20_000), space=replace(SPACE, goals=goals))
    assert SPACE.steps(point, 2) == SPACE.steps(HALF, 2)


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

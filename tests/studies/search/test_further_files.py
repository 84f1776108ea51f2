"""Further files of models that were tried in full."""

from dataclasses import replace

import pytest

from compressor.studies.search.estimates import estimates
from compressor.studies.search.further_files import SIBLINGS, sibling
from compressor.studies.search.goals import Goals
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import trails
from tests.studies.search.test_neighbours import HALF, ORIGINAL, SPACE, done


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


def test_few_bits_that_cost_much_promise_nothing_of_files_with_more():
    """By the law alone a file of a few bits more than 2.75 would lose much less than nothing."""
    whole = SPACE.at_rest
    tried = [done(0, whole | {"precision": "mixed", "bits": 4.5}, 0.0, 45_000),
             done(1, whole | {"precision": "mixed", "bits": 3.5}, 0.0, 35_000, "sibling"),
             done(2, whole | {"precision": "mixed", "bits": 2.75}, 0.03, 28_000, "sibling")]  # fmt: skip
    assert beside(*tried, after=4) is None
    assert SPACE.stored(beside(*tried[:1], after=4)).bits < 4.5

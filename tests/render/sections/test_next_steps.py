"""What to try next: each proposal is about a limit that was missed, and its command is one that the tool takes."""

import itertools

import pytest

from compressor.recipe import load
from compressor.render.sections.next_steps import command, tries
from compressor.report import Limit
from tests.render.sections.test_rounding import rounded
from tests.render.views import changed


def missing(report, name, *, limit, reached, recipe="quickstart"):
    """The report of a run of a shipped recipe that missed this limit alone."""
    limits = (Limit(name=name, limit=limit, reached=reached, met=False),)
    return report.model_copy(update={"limits": limits, "recipe": load(recipe).resolved()})


def texts(report):
    return [one.text for one in tries(report)]


def test_a_metric_that_fell_too_far_asks_for_a_smaller_ratio_and_longer_training(report):
    found = tries(missing(report, "metric_drop", limit=0.01, reached=0.03, recipe="units-half"))
    assert ("steps.0.ratio", 0.35) in [change for one in found for change in one.changes]
    assert any(key.endswith(".epochs") for one in found for key, _ in one.changes)
    assert ("compressor", "sensitivity", "--task", "vowels/task.py", "--max-drop", "0.01") in [
        one.command for one in found
    ]


def test_a_loss_by_rounding_asks_for_more_bits_first_and_one_by_the_steps_does_not(report):
    good = changed(report, torch_score=report.original.torch_score)
    assert texts(missing(rounded(good), "metric_drop", limit=0.003, reached=0.03))[0].startswith("Rounding costs most")
    assert not any(
        "Rounding" in text for text in texts(missing(rounded(report), "metric_drop", limit=0.003, reached=0.03))
    )


def test_a_file_that_is_too_large_asks_for_fewer_bits_and_then_for_fewer_units(report):
    (bits,) = tries(missing(report, "file_ratio", limit=6.0, reached=2.0, recipe="units-half"))
    assert bits.changes == (("exports.0.precision", "int8"),)
    bits, units = tries(missing(report, "file_ratio", limit=20.0, reached=2.0, recipe="units-half"))
    # 10 times smaller: 3.3 by bits, the rest by units, with whose square parameters go
    assert units.changes == (("steps.0.ratio", 0.72),)


def test_nothing_larger_is_proposed_while_the_metric_is_too_low(report):
    both = missing(report, "file_ratio", limit=20.0, reached=2.0, recipe="units-half")
    low = Limit(name="metric_drop", limit=0.01, reached=0.03, met=False)
    ratios = [
        value
        for one in tries(both.model_copy(update={"limits": (*both.limits, low)}))
        for key, value in one.changes
        if key == "steps.0.ratio"
    ]
    assert ratios == [0.35]


def test_of_several_files_the_one_that_is_furthest_off_decides(report):
    near = missing(report, "a.onnx: parameters_ratio", limit=4.0, reached=2.0, recipe="units-half")
    far = Limit(name="b.onnx: parameters_ratio", limit=8.0, reached=2.0, met=False)
    (one,) = tries(near.model_copy(update={"limits": (far, *near.limits)}))
    assert one.changes == (("steps.0.ratio", 0.75),)


def test_room_that_is_left_is_offered_and_a_limit_that_is_nearly_reached_is_not(report):
    near = missing(report, "metric_drop", limit=0.01, reached=0.0, recipe="units-half")
    met = near.model_copy(update={"limits": (near.limits[0].model_copy(update={"met": True}),)})
    assert texts(met)[0].startswith("0.0100 of the metric's limit is left")
    full = met.model_copy(update={"limits": (met.limits[0].model_copy(update={"reached": 0.009}),)})
    assert not any("is left" in text for text in texts(full))


def test_a_rehearsal_asks_for_the_whole_run(report):
    rehearsed = report.model_copy(update={"quick": True, "command": (*report.command, "--quick")})
    (one,) = tries(rehearsed)
    assert command(rehearsed, one) == report.command


def test_a_run_from_python_has_no_commands(report):
    bare = missing(report, "file_ratio", limit=20.0, reached=2.0).model_copy(update={"command": ()})
    assert tries(bare)
    assert [command(bare, one) for one in tries(bare)] == [()] * len(tries(bare))


NAMES = (
    *("metric_drop", "metric_drop_relative", "file_ratio", "file_bytes", "parameters_ratio", "speedup", "latency_ms"),
    *("flash_bytes", "ram_bytes"),
)


RECIPES = ("quickstart", "units-half", "heads-half", "weights-90", "low-rank", "phones", "int8")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_proposed_change_is_one_that_the_recipe_takes(report, recipe, name):
    limit, reached = (3.0, 1.1) if name.endswith(("ratio", "speedup")) else (1.0, 2.7)
    missed = missing(rounded(report), name, limit=limit, reached=reached, recipe=recipe)
    for one in tries(missed):
        words = command(missed, one)
        overrides = [word for before, word in itertools.pairwise(words) if before == "--set"]
        assert len(overrides) == len(one.changes)
        assert load(recipe, overrides).sha256() != load(recipe).sha256() or not overrides

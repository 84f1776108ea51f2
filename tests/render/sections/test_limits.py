import pytest

from compressor.render.sections.limits import statements, table
from compressor.report import Limit


@pytest.mark.parametrize(
    ("name", "limit", "reached", "row"),
    [
        ("metric_drop", 0.01, -0.0, ("at most 0.0100", "0.0000")),
        ("metric_drop_relative", 0.1, 0.125, ("at most 10.0 %", "12.5 %")),
        ("file_ratio", 3.0, 3.9, ("at least 3.00x", "3.90x")),
        ("file_bytes", 2048.0, 1024.0, ("at most 2.0 KiB", "1.0 KiB")),
        ("model.step.onnx: latency_ms", 1.0, 0.25, ("at most 1.00 ms", "0.250 ms")),
    ],
)
def test_a_limit_is_shown_in_its_unit(report, name, limit, reached, row):
    limits = (Limit(name=name, limit=limit, reached=reached, met=True),)
    assert table(report.model_copy(update={"limits": limits})).rows == ((name, *row, "met"),)


def test_limits_that_are_all_met_are_counted(report):
    (statement,) = statements(report.model_copy(update={"limits": report.limits[:2]}))
    assert (statement.tone, statement.text) == ("good", "Limits met: 2 of 2.")


def test_a_recipe_without_limits_says_nothing_of_them(report):
    assert statements(report.model_copy(update={"limits": ()})) == []


def test_a_rehearsal_says_which_limits_it_leaves_to_the_whole_run(report):
    recipe = report.recipe | {"limits": {"metric_drop": 0.01, "speedup": None}}
    rehearsed = report.model_copy(update={"limits": (), "quick": True, "recipe": recipe})
    assert [statement.text for statement in statements(rehearsed)] == ["Not judged by a rehearsal: metric_drop."]

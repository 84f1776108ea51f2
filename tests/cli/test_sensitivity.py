"""`sensitivity`: the table, the files, the cache and the ratios for a recipe."""

import json
from xml.etree import ElementTree

import pytest
import yaml

from tests.cli.conftest import call


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sensitivity(files, *arguments):
    return call("sensitivity", "--task", files / "task.py", *arguments)


def test_the_table_has_a_row_a_layer_and_a_column_a_ratio(files):
    lines = sensitivity(files, "--ratios", "0.5,0.3", "--targets", "*").out.splitlines()
    assert lines[2].split("  ")[-1].strip() == "50 % gone"
    assert lines[4].split()[:2] == ["gru", "11"]
    assert lines[5].split() == ["out", "2", "not", "possible", "not", "possible"]
    assert lines[-1].startswith("out: units of `out` cannot be removed: ")


def test_a_second_call_reads_the_cache_and_says_so_unless_told_not_to(files):
    first, second, third = (sensitivity(files, *more, "--json") for more in ((), (), ("--no-cache",)))
    assert (first.out, first.code) == (second.out, 0)
    assert "measured before, at 20" in second.err
    assert "measured before" not in first.err + third.err


def test_the_files_are_the_map_and_a_plot_that_stands_alone(files, tmp_path):
    out = tmp_path / "new" / "out"
    shown = json.loads(sensitivity(files, "--out", out, "--json").out)
    assert json.loads((out / "sensitivity.json").read_text()) == shown["sensitivity"]
    plot = ElementTree.fromstring((out / "sensitivity.svg").read_text())
    assert plot.tag == "{http://www.w3.org/2000/svg}svg"
    assert plot.find("{http://www.w3.org/2000/svg}title").text.startswith("Drop of accuracy with each layer pruned")


def test_the_ratios_can_be_pasted_into_a_recipe_and_reach_the_budget(files, tmp_path):
    result = sensitivity(files, "--budget", "0.5")
    steps = yaml.safe_load(result.out[result.out.index("steps:") :])["steps"]
    assert steps == [{"method": "magnitude", "prune": "units", "ratios": {"gru": pytest.approx(0.55)}}]
    recipe = tmp_path / "recipe.yaml"
    text = {"schema_version": 1, "name": "pasted", "steps": steps, "exports": [{"format": "onnx"}]}
    recipe.write_text(yaml.safe_dump(text))
    assert call("validate", recipe).code == 0
    assert "6 of 11 units go (54.5 %)" in result.err
    assert "before retraining, all together: accuracy 0." in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "1.5"), "error: --budget is 1.5, expected a fraction above 0 and below 1"),
        (("--ratios", "0.5;0.7"), "error: --ratios takes numbers above 0 and below 1"),
        (("--budget-of", "units"), "error: `--budget-of` belongs to --budget"),
        (("--budget", "0.9"), "error: 90 % of the units cannot go"),
        (("--targets", "gruu"), "error: `targets`: `gruu` matches nothing in the model"),
    ],
)
def test_what_cannot_be_meant(files, arguments, message):
    result = sensitivity(files, *arguments)
    assert result.code == 2
    assert message in result.err


def test_a_cache_that_cannot_be_written_is_said_and_no_error(files, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = sensitivity(files, "--ratios", "0.5")
    assert result.code == 0
    assert "not kept for the next time: cannot write" in result.err

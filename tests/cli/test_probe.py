"""`probe` on architectures by name and on the conversions of a recipe."""

import json

import pytest

from compressor.probing.plans import PLANS, Plan
from compressor.probing.state_tracking import StateTracking
from compressor.probing.training import Effort
from compressor.report import ProbeFile
from tests.cli.conftest import call

RECIPE = """
schema_version: 1
name: graph
steps:
  - {method: random_graph, graph: watts_strogatz, nodes: 7, neighbours: 2}
  - {method: retrain}
exports:
  - {format: onnx}
"""


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """A plan of seconds, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = Plan(tasks=(StateTracking(length=11),), effort=Effort(width=8, steps=3, batch=5, scored=31))
    monkeypatch.setitem(PLANS, "standard", plan)


def test_two_architectures_are_compared_and_the_result_is_written(tmp_path):
    out = tmp_path / "probe.json"
    result = call("probe", "--architectures", "lstm,aaren", "--heads", 1, "--seeds", 2, "--jobs", 1, "--out", out)
    assert (result.code, result.err.splitlines()[-1]) == (0, f"wrote {out}")
    assert "LSTM (2 layers) → Aaren (2 layers, 1 head)" in result.out
    assert "state tracking (S3), 2 moves, length 11" in result.out
    assert "neither learns it: no conclusion" in result.out
    (found,) = ProbeFile.model_validate_json(out.read_text()).probes
    assert (found.original, found.converted, found.seeds, found.modules) == ("LSTM", "Aaren", 2, ())


def test_a_recipe_is_probed_by_what_it_converts_in_the_tasks_model(files, tmp_path):
    (tmp_path / "graph.yaml").write_text(RECIPE)
    given = ("--recipe", tmp_path / "graph.yaml", "--task", files / "task.py", "--set", "steps.0.nodes=11")
    result = call("probe", *given, "--jobs", 1, "--json")
    (found,) = json.loads(result.out)["probes"]
    assert (found["original"], found["converted"], found["modules"]) == ("GRU", "GRU on a graph", ["gru"])
    assert found["original_size"] == "1 layer"
    assert found["converted_size"].startswith("11 nodes in")


def test_the_seed_counts():
    runs = [
        call("probe", "--architectures", "gru,lstm", "--seed", seed, "--jobs", 1, "--json").out for seed in (0, 0, 9)
    ]
    first, again, other = (json.loads(run)["probes"][0]["results"] for run in runs)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "probe takes either a recipe and its task, or two architectures\nhint: --recipe RECIPE --task FILE.py"),
        (["--recipe", "random-graph", "--architectures", "gru,lstm"], "probe takes either a recipe"),
        (["--recipe", "random-graph"], "--recipe needs the task whose model it converts\nhint: add --task FILE.py"),
        (["--recipe", "random-graph", "--task", "t.py", "--heads", "2"], "`--heads` belongs to --architectures"),
        (["--architectures", "gru,lstm", "--task", "t.py"], "`--task` belongs to --recipe"),
        (["--architectures", "gru"], "--architectures takes two different words with a comma between, not `gru`"),
        (["--architectures", "gru,gru"], "--architectures takes two different words"),
        (["--architectures", "gru,mamba"], "unknown architecture `mamba`\nhint: architectures: attention, aaren"),
        (["--architectures", "gru,lstm", "--more", "mood"], "unknown probe `mood`\nhint: probes: selectivity"),
        (["--recipe", "nowhere.yaml", "--task", "t.py"], "there is no file `nowhere.yaml`"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    result = call("probe", *arguments)
    assert (result.code, result.out) == (2, "")
    assert f"error: {message}" in result.err


def test_a_recipe_that_converts_nothing_is_refused(files):
    result = call("probe", "--recipe", files / "recipe.yaml", "--task", files / "task.py")
    assert result.code == 2
    assert "\nerror: `tiny` has no step that replaces an architecture of this model" in result.err

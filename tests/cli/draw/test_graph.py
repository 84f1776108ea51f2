"""`draw graph`: the graphs of a recipe as figures and properties."""

import json

from tests.cli.conftest import call


def test_a_recipes_graph_is_drawn_with_its_properties(tmp_path):
    result = call("draw", "graph", "random-graph", "--out", tmp_path / "made", "--json")
    facts = json.loads(result.out)["step 1"]
    assert len(facts) == 23
    assert facts["nodes"] == 12
    assert "12 nodes in" in (tmp_path / "made" / "graph.svg").read_text()


def test_overrides_count(tmp_path):
    text = call("draw", "graph", "random-graph", "--out", tmp_path, "--set", "steps.0.nodes=19").out
    assert "nodes                            19" in text


def test_a_recipe_without_a_graph_is_refused(tmp_path):
    result = call("draw", "graph", "quickstart", "--out", tmp_path / "none")
    assert result.code == 2
    assert "`quickstart` has no `random_graph` step" in result.err
    assert not (tmp_path / "none").exists()

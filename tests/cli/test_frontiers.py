"""`frontiers`: what searches found, as a table, as JSON and as recipes."""

import json

import pytest

from compressor.recipe import load
from compressor.studies.search import known
from tests.cli.conftest import call


def test_the_list_has_a_line_for_each_with_its_sizes():
    lines = call("frontiers", "list").out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(known.names())


@pytest.mark.parametrize("name", known.names())
def test_show_has_every_point_and_the_conditions(name):
    found = known.read(name)
    shown = call("frontiers", "show", name)
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == [str(point.number) for point in found.points]
    assert found.conditions in " ".join(shown.err.split())
    assert json.loads(call("frontiers", "show", name, "--json").out)["name"] == found.name


def test_a_point_is_a_recipe_that_runs_elsewhere(tmp_path):
    name = known.names()[0]
    point = known.read(name).points[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(call("frontiers", "show", name, "--recipe", str(point.number)).out, encoding="utf-8")
    assert [step.method for step in load(str(path)).steps] == [step["method"] for step in point.recipe.steps]


def test_a_point_that_it_has_not_is_refused_with_those_that_it_has():
    done = call("frontiers", "show", known.names()[0], "--recipe", "100000")
    assert done.code == 2
    assert "the frontier has no point 100000" in done.err
    assert str(known.read(known.names()[0]).points[0].number) in done.err

"""The shipped recipes, their catalogue and the JSON Schema."""

import json
import re

import jsonschema
import pytest

from compressor.methods import METHODS
from compressor.plain_yaml import dump
from compressor.recipe import library, load, names, schema
from compressor.recipe.yaml12 import parse

SCHEMA_FILE = "recipe.schema.json"
MODELINE = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"


def test_there_are_recipes():
    assert {"quickstart", "units-half", "weights-90", "weights-2-4"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_recipe_loads_under_its_own_name(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize("name", names())
def test_every_recipe_can_be_given_as_a_path(name):
    assert load(str(library() / f"{name}.yaml")).sha256() == load(name).sha256()


@pytest.mark.parametrize("name", names())
def test_every_recipe_with_its_defaults_written_out_means_the_same(name, tmp_path):
    recipe = load(name)
    (tmp_path / "recipe.yaml").write_text(dump(recipe.resolved()))
    again = load(str(tmp_path / "recipe.yaml"))
    assert again.sha256() == recipe.sha256()
    for ours, theirs in zip(recipe.exports, again.exports, strict=True):
        assert (theirs.strict, theirs.tolerances) == (ours.strict, ours.tolerances)


@pytest.mark.parametrize("name", names())
def test_the_first_line_of_every_recipe_points_to_the_schema_beside_it(name):
    assert (library() / f"{name}.yaml").read_text().startswith(MODELINE)
    assert (library() / SCHEMA_FILE).is_file()


def test_the_catalogue_lists_every_recipe_once_and_nothing_else():
    listed = re.findall(r"^\| \[([\w-]+)\]\(([\w.-]+)\)", (library() / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [(name, f"{name}.yaml") for name in names()]


def test_the_format_shown_in_the_catalogue_is_a_recipe(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (library() / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "shown.yaml").write_text(block)
    assert load(str(tmp_path / "shown.yaml")).limits.latency_ms == 2


def test_the_schema_file_is_what_the_models_say():
    # to write it anew: python docs/generate.py
    assert json.loads((library() / SCHEMA_FILE).read_text()) == json.loads(json.dumps(schema()))


def test_the_schema_is_valid_draft_2020_12():
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", names())
def test_the_schema_accepts_every_recipe(name):
    document = parse((library() / f"{name}.yaml").read_text(), name)
    assert not list(jsonschema.Draft202012Validator(schema()).iter_errors(document.value))


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"schema_version": 2},
        {"steps": []},
        {"steps": [{"epochs": 3}]},
        {"steps": [{"method": "unknown"}]},
        {"steps": [{"method": "retrain", "epoch": 3}]},
        {"steps": [{"method": "retrain", "epochs": 0}]},
        {"steps": [{"method": "retrain", "epochs": "3"}]},
        {"exports": [{"format": "onnx", "opset": "18"}]},
        {"limits": {"metric": 1}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change):
    recipe = {"schema_version": 1, "name": "x", "steps": [{"method": "retrain"}], "exports": [{"format": "onnx"}]}
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(recipe)
    assert not validator.is_valid(recipe | change)


def test_the_schema_describes_every_option_of_every_method():
    for method in METHODS.values():
        properties = schema()["$defs"][method.__name__]["properties"]
        assert [name for name, field in properties.items() if not field.get("description")] == []
        assert schema()["$defs"][method.__name__]["additionalProperties"] is False

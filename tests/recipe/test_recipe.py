"""What a loaded recipe is."""

import json

import pytest
from pydantic import ValidationError

from compressor.recipe import Recipe, load

STEPS = "- method: magnitude\n  prune: weights\n  pattern: 2:4\n- method: retrain\n  lr: 1e-3\n"


def test_yaml_values_arrive_as_what_they_mean(with_steps):
    recipe = load(with_steps(STEPS))
    assert [step.method for step in recipe.steps] == ["magnitude", "retrain"]
    assert (recipe.steps[0].pattern, recipe.steps[1].lr) == ("2:4", 1e-3)
    assert [entry.format for entry in recipe.exports] == ["onnx"]


def test_a_whole_number_is_a_number(with_steps):
    value = load(with_steps("- {method: retrain, temperature: 3, distill: true}")).steps[0].temperature
    assert (value, type(value)) == (3.0, float)


def test_resolved_fills_the_defaults_in_and_is_json(with_steps):
    resolved = load(with_steps(STEPS)).resolved()
    assert resolved["seed"] == 0
    assert resolved["steps"][0]["matrices"] == "both"
    assert resolved["exports"][0]["opset"] == 18
    assert resolved["limits"]["metric_drop"] is None
    assert json.loads(json.dumps(resolved)) == resolved


def test_a_resolved_recipe_is_a_recipe_of_the_same_hash(with_steps):
    recipe = load(with_steps(STEPS))
    again = Recipe.model_validate_json(json.dumps(recipe.resolved()))
    assert again == recipe
    assert again.sha256() == recipe.sha256()


def test_the_hash_follows_the_meaning_and_not_the_text(with_steps):
    first = load(with_steps("- {method: retrain, epochs: 1}")).sha256()
    assert load(with_steps("# the same\n- method: retrain")).sha256() == first
    assert load(with_steps("- {method: retrain, epochs: 2}")).sha256() != first
    assert len(first) == 64


def test_a_recipe_cannot_be_changed(with_steps):
    recipe = load(with_steps(STEPS))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 5

"""`--set` replaces any key, and errors name it as the place."""

import pytest

from compressor.errors import RecipeErrors
from compressor.recipe import load

STEPS = """
- method: magnitude
  prune: units
  ratio: 0.5
- method: retrain
"""


@pytest.fixture
def name(with_steps):
    return with_steps(STEPS)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("steps.0.ratio=0.7", ("steps", 0, "ratio"), 0.7),
        ("steps.1.lr=1e-4", ("steps", 1, "lr"), 1e-4),
        ("steps.0.targets=[a, b]", ("steps", 0, "targets"), ["a", "b"]),
        ("exports.0.stream=true", ("exports", 0, "stream"), {"chunk": 1, "batch": 1, "cells": "auto"}),
        ("exports.0.stream.chunk=4", ("exports", 0, "stream", "chunk"), 4),
        ("exports.0.opset=19", ("exports", 0, "opset"), 19),
        ("limits.metric_drop=0.02", ("limits", "metric_drop"), 0.02),
        ("description='a=b: c'", ("description",), "a=b: c"),
        ("name=no", ("name",), "no"),
        ("steps.1={method: retrain, epochs: 9}", ("steps", 1, "epochs"), 9),
    ],
)
def test_any_key_can_be_set_given_in_the_file_or_not(name, override, path, value):
    found = load(name, [override]).resolved()
    for part in path:
        found = found[part]
    assert found == value


def test_an_option_of_a_group_is_set_below_it(name):
    export = load(name, ["exports.0.precision=int8", "exports.0.rounding.max_error=0.2"]).exports[0]
    assert export.rounding.max_error == 0.2
    export = load(name, ["exports.0.stream=true", "exports.0.stream.chunk=4"]).exports[0]
    assert export.step.chunk == 4


def test_an_option_beside_its_group_names_the_override_to_write(name):
    with pytest.raises(RecipeErrors) as caught:
        load(name, ["exports.0.precision=int8", "exports.0.quantize_for=npu"])
    (error,) = caught.value.errors
    assert (error.place.file, error.message, error.hint) == (
        "--set exports.0.quantize_for=npu",
        "`quantize_for` of `onnx` is an option of `rounding`",
        "write `--set exports.0.rounding.quantize_for=npu`",
    )


def test_the_last_override_of_a_key_wins(name):
    assert load(name, ["seed=1", "seed=2"]).seed == 2


def test_an_override_of_one_alias_leaves_the_others_alone(with_steps):
    name = with_steps("- &r {method: retrain, epochs: 2}\n- *r")
    assert [step["epochs"] for step in load(name, ["steps.1.epochs=5"]).resolved()["steps"]] == [2, 5]


def test_an_override_replaces_a_mistake_of_the_file(with_steps):
    assert (
        load(with_steps("- {method: retrain, epochs: x}"), ["steps.0.epochs=3"]).resolved()["steps"][0]["epochs"] == 3
    )


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "steps.0.ratio=1.5",
            "error: `ratio` is the number 1.5, expected a number above 0 and below 1\n --> --set steps.0.ratio=1.5",
        ),
        (
            "steps.0.rato=0.5",
            "error: `magnitude` has no option `rato`\n --> --set steps.0.rato=0.5\nhint: did you mean `ratio`?",
        ),
        (
            "stps.0.ratio=0.5",
            "error: a recipe has no key `stps`\n --> --set stps.0.ratio=0.5\nhint: did you mean `steps`?",
        ),
        (
            "steps.2.ratio=0.5",
            "error: `steps` has no entry `2`\n --> --set steps.2.ratio=0.5\n"
            "hint: entries are numbered from 0: 0 (magnitude), 1 (retrain)",
        ),
        (
            "steps.-1.ratio=0.5",
            "error: `steps` has no entry `-1`\n --> --set steps.-1.ratio=0.5\n"
            "hint: entries are numbered from 0: 0 (magnitude), 1 (retrain)",
        ),
        (
            "steps.retrain.lr=1",
            "error: `steps` has no entry `retrain`\n --> --set steps.retrain.lr=1\n"
            "hint: entries are numbered from 0: 0 (magnitude), 1 (retrain)",
        ),
        ("name.a=1", "error: `name` is the text `test` and has no `a`\n --> --set name.a=1"),
        ("seed", "error: `seed` sets nothing\n --> --set seed\nhint: write `--set seed=VALUE`"),
        ("=5", "error: `` is not a key\n --> --set =5\nhint: write it like `steps.0.ratio`"),
        (
            "steps..ratio=5",
            "error: `steps..ratio` is not a key\n --> --set steps..ratio=5\nhint: write it like `steps.0.ratio`",
        ),
        (
            "seed=[",
            "error: not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'\n"
            " --> --set seed=[",
        ),
        (
            "seed=!!int 5",
            "error: a recipe has no tags, found `!!int`\n --> --set seed=!!int 5\nhint: remove the tag",
        ),
        (
            "seed=.inf",
            "error: `.inf` is not a finite number\n --> --set seed=.inf\nhint: leave the key out for no bound",
        ),
    ],
)
def test_a_wrong_override_is_named_as_the_place(name, refused, override, text):
    assert refused(name, override) == text


def test_mistakes_of_the_file_and_of_overrides_are_shown_together(with_steps, refused):
    text = refused(with_steps("- {method: retrain, epochs: 0}"), "seed=x")
    assert text.index("recipe.yaml:4") < text.index("--set seed=x")

"""`validate`: every mistake with its place."""

import json

from compressor.recipe import load
from tests.cli.conftest import call


def test_a_valid_recipe_is_one_line():
    result = call("validate", "quickstart")
    assert (result.code, result.err) == (0, "")
    assert result.out == "quickstart is valid: magnitude, retrain; exports onnx\n"


def test_a_recipe_that_only_rounds_has_no_steps():
    assert call("validate", "npu").out == "npu is valid: no steps; exports onnx\n"


def test_every_recipe_is_checked_and_one_mistake_is_enough_for_exit_2():
    result = call("validate", "quickstart", "nowhere.yaml", "units-half")
    assert result.code == 2
    assert result.out.count(" is valid: ") == 2
    assert result.err.startswith("error: there is no file `nowhere.yaml`\n")


def test_an_override_is_validated():
    result = call("validate", "quickstart", "--set", "steps.0.ratio=2")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: `ratio` is the number 2, expected a number above 0 and below 1\n --> --set steps.0.ratio=2\n\n"
    )


def test_json_of_validate_holds_the_places_of_mistakes(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("schema_version: 1\nname: x\nsteps: [{method: retrai}]\nexports: [{format: onnx}]\n")
    result = call("validate", "--json", "quickstart", path)
    good, bad = json.loads(result.out)
    assert (result.code, result.err) == (2, "")
    assert (good["valid"], good["sha256"]) == (True, load("quickstart").sha256())
    assert good["resolved"]["steps"][0]["method"] == "magnitude"
    assert bad["errors"] == [
        {
            "message": "unknown method `retrai`",
            "hint": "did you mean `retrain`?",
            "file": str(path),
            "line": 3,
            "column": 18,
        }
    ]

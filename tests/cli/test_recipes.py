"""`validate`, `recipes` and `methods`."""

import json

import pytest

from compressor.methods import METHODS
from compressor.recipe import load, names, schema
from tests.cli.conftest import call


def test_a_valid_recipe_is_one_line():
    result = call("validate", "quickstart")
    assert (result.code, result.err) == (0, "")
    assert result.out == "quickstart is valid: magnitude, retrain; exports onnx\n"


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


def test_the_list_of_recipes_names_all():
    facts = json.loads(call("recipes", "list", "--json").out)
    assert [row["name"] for row in facts] == list(names())
    table = call("recipes", "list").out
    assert [line.split()[0] for line in table.splitlines()[2:]] == list(names())


def test_show_writes_the_text_of_the_file():
    assert "  - method: magnitude\n    prune: units\n" in call("recipes", "show", "quickstart").out


def test_a_copy_is_the_same_recipe_without_the_line_for_our_own_editor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("recipes", "copy", "quickstart")
    assert (result.code, result.out, result.err) == (0, "", "copied to quickstart.yaml\n")
    assert (tmp_path / "quickstart.yaml").read_text().startswith("schema_version: 1\n")
    assert load("./quickstart.yaml").sha256() == load("quickstart").sha256()


def test_a_copy_overwrites_nothing_unless_forced(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine")
    result = call("recipes", "copy", "quickstart", mine)
    assert (result.code, result.err) == (2, f"error: `{mine}` exists\nhint: give another name, or --force\n")
    assert mine.read_text() == "mine"
    assert call("recipes", "copy", "quickstart", mine, "--force").code == 0
    assert load(str(mine)).name == "quickstart"


def test_a_copy_into_a_folder_that_is_not_there_leaves_nothing(tmp_path):
    result = call("recipes", "copy", "quickstart", tmp_path / "nowhere" / "mine.yaml")
    assert result.code == 2
    assert result.err.startswith(f"error: cannot write {tmp_path}/nowhere/mine.yaml: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_json():
    assert json.loads(call("recipes", "schema").out) == json.loads(json.dumps(schema()))


def test_the_list_of_methods_has_a_line_for_each():
    lines = call("methods", "list").out.splitlines()[2:]
    assert [line.split(maxsplit=1) for line in lines] == [[name, method.summary] for name, method in METHODS.items()]
    assert [row["name"] for row in json.loads(call("methods", "list", "--json").out)] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_show_names_every_option_with_what_it_may_be(name):
    text = call("methods", "show", name).out
    lines = text.splitlines()
    for option in METHODS[name].model_fields:
        assert option == "method" or any(line.startswith(f"{option}  ") for line in lines)
    assert f"  - method: {name}\n" in text
    assert max(len(line) for line in lines) <= 100


def test_show_gives_type_range_and_default():
    text = call("methods", "show", "magnitude").out
    assert "\nprune  `weights` or `units`; required\n" in text
    assert "\nscope  `layer` or `global`\n" in text
    assert "\nmatrices  `both`, `i2h` or `h2h`; default both\n" in text
    assert "\nratio  a number above 0 and below 1\n" in text
    assert "\nretrain  a mapping of options of `retrain`\n" in text


def test_an_unknown_method_names_the_nearest_one():
    result = call("methods", "show", "retrane")
    assert (result.code, result.err) == (2, "error: there is no method `retrane`\nhint: did you mean `retrain`?\n")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("compressor run quick", ["quickstart"]),
        ("compressor validate weights", ["weights-2-4", "weights-90"]),
        ("compressor recipes show units", ["units-half"]),
        ("compressor methods show r", ["random_graph", "retrain"]),
        ("compressor doc", ["doctor"]),
    ],
)
def test_the_shell_completes_names(monkeypatch, tmp_path, words, completed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_COMPRESSOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert call().out.split() == completed


def test_the_shell_completes_recipe_files_and_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("four.yaml", "five.txt", ".hidden.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("_COMPRESSOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "compressor run fo")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert call().out.split() == ["folder/", "four.yaml"]

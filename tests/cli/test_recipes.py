"""`recipes`: the library of shipped recipes."""

import json

from compressor.recipe import load, names, schema
from tests.cli.conftest import call


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

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


def test_a_copy_is_the_same_file_and_the_schema_that_it_names_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("recipes", "copy", "quickstart")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("copied to quickstart.yaml\nrecipe.schema.json is for your editor")
    text = (tmp_path / "quickstart.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=recipe.schema.json"
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == json.loads(json.dumps(schema()))
    assert load("./quickstart.yaml").sha256() == load("quickstart").sha256()


def test_a_schema_that_is_there_stays(tmp_path):
    (tmp_path / "recipe.schema.json").write_text("mine")
    assert call("recipes", "copy", "quickstart", tmp_path).err == f"copied to {tmp_path}/quickstart.yaml\n"
    assert (tmp_path / "recipe.schema.json").read_text() == "mine"


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

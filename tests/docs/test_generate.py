"""The reference pages are written from the code, and a stale page is seen."""

import sys

import pytest

from compressor.cli import EXIT_CODES
from compressor.methods import METHODS
from compressor.nn.converted.recurrent import TARGETS
from compressor.nn.converted.target import OWN_OPTIONS
from compressor.recipe.choice import formats
from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import architecture
import catalogues
import generate


@pytest.fixture(scope="module")
def pages():
    return generate.pages()


def test_every_method_and_every_option_of_it_is_on_the_page(pages):
    for word, method in METHODS.items():
        section = pages["reference/recipe.md"].partition(f"## method: {word}\n")[2].partition("\n## ")[0]
        assert [name for name in method.model_fields if name != "method" and f"| `{name}` |" not in section] == []


def test_every_format_and_every_option_of_it_is_on_the_page(pages):
    for word, options in formats().items():
        section = pages["reference/exports.md"].partition(f"## format: {word}\n")[2].partition("\n## ")[0]
        assert [name for name in options.model_fields if name != "format" and f"| `{name}` |" not in section] == []


def test_commands_of_commands_have_sections_of_their_own(pages):
    assert "\n## compressor recipes copy\n" in pages["reference/commands.md"]


def test_every_exit_code_is_on_the_page(pages):
    assert all(f"\n| {code} | {meaning} |" in pages["reference/exit-codes.md"] for code, meaning in EXIT_CODES.items())


def test_the_picture_has_every_room_of_the_import_contract():
    drawn = architecture.svg()
    assert all(f">{room}" in drawn for layer in architecture.layers() for room in layer)


def test_every_stop_of_a_run_is_a_room_of_the_picture():
    rooms = {"exporters", *(room for layer in architecture.layers() for room in layer)}
    assert {room for room, _ in architecture.RUN} <= rooms


def test_a_stale_page_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    with pytest.raises(SystemExit, match=r"not what the code says: .*reference/commands.md.*; run `python docs/gen"):
        generate.main()
    assert not list(tmp_path.iterdir())


def test_written_pages_pass_the_check(tmp_path, monkeypatch, capsys):
    for folder in {(tmp_path / name).parent for name in generate.written()}:
        folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    for arguments in (["generate.py"], ["generate.py", "--check"]):
        monkeypatch.setattr(sys, "argv", arguments)
        generate.main()
    assert capsys.readouterr().out.count("written: ") == len(generate.written())


def test_a_recipe_that_no_catalogue_lists_comes_last_by_its_own_words(tmp_path):
    listed, new = (
        "| [one](one.yaml) | old words | no | no |\n",
        "# smaller file: yes\n# faster: a little\ndescription: New.\n",
    )
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/README.md").write_text(f"# Recipes\n\n{listed}\nThe end.\n")
    for name in ("one", "another"):
        (tmp_path / f"recipes/{name}.yaml").write_text(new)
    rows = [f"| [{name}]({name}.yaml) | New | yes | a little |\n" for name in ("one", "another")]
    assert catalogues.recipes(tmp_path) == f"# Recipes\n\n{''.join(rows)}\nThe end.\n"
    (tmp_path / "recipes/another.yaml").write_text("description: New.\n")
    with pytest.raises(ValueError, match=r"recipes/another.yaml: say `# smaller file"):
        catalogues.recipes(tmp_path)


def test_a_page_of_concepts_that_no_row_links_to_is_linked_by_its_title(tmp_path):
    (tmp_path / "docs/concepts").mkdir(parents=True)
    row = "| understand a method | [old](concepts/old.md)"
    (tmp_path / "docs/README.md").write_text(f"{row} |\n| change the code | |\n")
    for name in ("old", "new"):
        (tmp_path / f"docs/concepts/{name}.md").write_text(f"# Of the {name}\n\nText.\n")
    assert catalogues.index(tmp_path) == f"{row}, [Of the new](concepts/new.md) |\n| change the code | |\n"


def test_every_target_of_convert_is_on_the_page_with_its_options_and_states(pages):
    rows = {
        row.split("|")[1].strip(): row
        for row in pages["reference/conversions.md"].splitlines()
        if row.startswith("| `")
    }
    assert rows.keys() - {"`to`"} == {f"`{word}`" for word in TARGETS}
    for option, owners in OWN_OPTIONS.items():
        assert all(f"`{option}`" in rows[f"`{word}`"] for word in owners)
    assert "`memory` 32×19" in rows["`fsmn`"]

"""Every recipe and every command that a page shows is one that the tool takes."""

import itertools
import re
import shlex

import pytest
import typer

from compressor.cli.app import command as whole_command
from compressor.recipe import load, names
from compressor.recipe.yaml12 import parse
from compressor.studies.search.goals import load as load_goals
from tests.docs.pages import ROOT, blocks

_PLACEHOLDER = re.compile(r"\$|^[A-Z]+$")
"""A variable of the shell, or a word in capitals."""
RECIPES = dict(blocks("yaml"))


def commands():
    """(place, words) of each call of `compressor` in a shell block."""
    for place, block in blocks("sh", "bash", ""):
        for number, line in enumerate(_lines(block)):
            for start, word in enumerate(line):
                if word == "compressor":
                    yield f"{place}, {number}", list(itertools.takewhile(_belongs, line[start + 1 :]))


def _lines(block):
    """Words of each command line, which may go on behind a backslash or in quotes."""
    text = ""
    for line in block.splitlines():
        text += line
        try:
            words = shlex.split(text, comments=True)
        except ValueError:  # an open quote, or a backslash at the end
            text += "\n"
            continue
        text = ""
        yield words


def _belongs(word):
    return word not in ("&&", "|", ";", ">")


COMMANDS = list(commands())


def _leaf(words):
    """The command that the words name, and the words after its name."""
    command = whole_command()
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_there_are_examples():
    assert len(RECIPES) > 10
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("place", RECIPES)
def test_a_recipe_or_a_part_of_one_is_valid(place, tmp_path):
    shown = parse(RECIPES[place], place).value
    if any(key.startswith("max_") for key in shown):  # goals of a search
        (tmp_path / "goals.yaml").write_text(_yaml(shown))
        assert load_goals(str(tmp_path / "goals.yaml")).exports
        return
    whole = {"schema_version": 1, "name": "shown", "steps": [{"method": "retrain"}], "exports": [{"format": "onnx"}]}
    (tmp_path / "shown.yaml").write_text(_yaml(whole | shown))
    assert load(str(tmp_path / "shown.yaml")).exports


def _yaml(value):
    import json

    return json.dumps(value)  # YAML 1.2 holds JSON


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[place for place, _ in COMMANDS])
def test_a_command_exists_with_the_options_that_it_is_given(place, words):
    command, rest = _leaf(words)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    assert not unknown, f"{place}: {typer.Context(command, info_name=words[0]).command_path} has no {unknown}"


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[place for place, _ in COMMANDS])
def test_recipes_and_files_of_the_repository_that_a_command_names_exist(place, words):
    _, rest = _leaf(words)
    for word in rest:
        path = word.partition(":")[0]
        if path.startswith(("samples/", "benchmarks/", "recipes/")):
            assert (ROOT / path).exists(), f"{place}: there is no {path}"
    if words[0] == "run" and not rest[0].endswith(".yaml") and not _PLACEHOLDER.search(rest[0]):
        overrides = [
            value for option, value in itertools.pairwise(rest) if option == "--set" and not _PLACEHOLDER.search(value)
        ]
        assert rest[0] in names(), f"{place}: there is no recipe {rest[0]}"
        assert load(rest[0], overrides).name

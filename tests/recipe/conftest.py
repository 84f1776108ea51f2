"""Recipes written on the spot."""

import textwrap

import pytest

from compressor.errors import RecipeError
from compressor.recipe import load

HEAD = "schema_version: 1\nname: test\n"
TAIL = "exports: [{format: onnx}]\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file `recipe.yaml` in a fresh working directory; gives its name."""
    monkeypatch.chdir(tmp_path)

    def to_file(text: str | bytes) -> str:
        content = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        (tmp_path / "recipe.yaml").write_bytes(content)
        return "recipe.yaml"

    return to_file


@pytest.fixture
def with_steps(write):
    """Write a recipe with these steps; the first of them is line 4."""

    def to_file(steps: str, rest: str = TAIL) -> str:
        return write(HEAD + "steps:\n" + textwrap.indent(textwrap.dedent(steps).strip("\n"), "  ") + "\n" + rest)

    return to_file


@pytest.fixture
def refused():
    """Load a recipe that must be refused; gives the whole text of the error."""

    def text(name: str, *overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load(name, overrides)
        return caught.value.render()

    return text

"""A recipe's text: from a path or from the library of shipped recipes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compressor.errors import RecipeError
from compressor.files import read_text

MAX_BYTES: Final = 128 * 1024
_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """A text and what to call it in errors."""

    file: str
    text: str


def library() -> Path:
    """The folder of shipped recipes: inside the package in a wheel, beside it in a checkout or an editable install."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> tuple[str, ...]:
    """Names of the shipped recipes, in alphabetical order."""
    return tuple(sorted(path.stem for path in library().glob("*.yaml")))


def find(path_or_name: str) -> Path:
    """The file that is meant: a shipped name is a bare word, everything else is a path.

    Raises:
        RecipeError: Neither a shipped name nor an existing file.
    """
    if path_or_name in names():
        return library() / f"{path_or_name}.yaml"
    path = Path(path_or_name)
    if path.is_dir():
        raise RecipeError(f"`{path_or_name}` is a folder, not a recipe", hint="give a file in it")
    if path.exists():
        return path
    bare = path.suffix not in _SUFFIXES and len(path.parts) <= 1
    message = f"unknown recipe `{path_or_name}`" if bare else f"there is no file `{path_or_name}`"
    raise RecipeError(message, hint=_nearest(path))


def read(path_or_name: str) -> Source:
    """Read a recipe's text.

    Raises:
        RecipeError: The file is missing, not readable, too long, or not UTF-8.
    """
    path = find(path_or_name)
    return Source(str(path), read_text(path, RecipeError, most=MAX_BYTES, hint="give a YAML file in UTF-8"))


def _nearest(path: Path) -> str:
    known = names()
    near = difflib.get_close_matches(path.stem, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"shipped recipes: {', '.join(known)}; anything else is a path" if known else "give the path of a YAML file"

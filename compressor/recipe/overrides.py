"""`--set steps.0.ratio=0.7`: replaces a value of a recipe, or of another document, before it is validated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.errors import Place, RecipeError
from compressor.recipe.words import found
from compressor.recipe.yaml12 import MAX_DEPTH, Document, Path, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


SET = "--set "
"""In front of an override, in its place."""


@dataclass(frozen=True)
class Override:
    """One value from the command line, read but not applied."""

    place: Place
    """What errors point to, such as `--set seed=3`."""
    keys: tuple[str, ...]
    value: Any


def read(text: str) -> Override:
    """Read `KEY=VALUE`; the value is YAML.

    Raises:
        RecipeError: No `=`, an empty key, or a value that is not YAML.
    """
    place = Place(f"{SET}{text}")
    dotted, equals, value = text.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals:
        raise RecipeError(f"`{text}` sets nothing", place=place, hint=f"write `--set {text}=VALUE`")
    if len(keys) > MAX_DEPTH:
        raise RecipeError(f"a key of {len(keys)} parts", place=place, hint=f"no recipe is deeper than {MAX_DEPTH}")
    if not all(keys):
        raise RecipeError(f"`{dotted}` is not a key", place=place, hint="write it like `steps.0.ratio`")
    try:
        document = parse(value, place.file)
    except RecipeError as error:
        raise RecipeError(error.message, place=place, hint=error.hint) from None
    if document is not None and document.errors:
        mistake = document.errors[0]
        raise RecipeError(mistake.message, place=place, hint=mistake.hint)
    return Override(place, keys, None if document is None else document.value)


def apply(document: Document, overrides: Sequence[Override]) -> Document:
    """A document with the overrides' values in place, in their order.

    Raises:
        RecipeError: A path that leads through a missing list entry or through something that has no keys.
    """
    value = _copy(document.value)
    keys, values = dict(document.keys), dict(document.values)
    for override in overrides:
        changed = _put(value, override)
        path = changed[-1]
        for places in (keys, values):
            for inner in [known for known in places if known[: len(path)] == path]:
                del places[inner]
            places.update(dict.fromkeys(changed, override.place))
    return replace(document, value=value, keys=keys, values=values)


def _copy(value: Any) -> Any:
    """A deep copy in which nothing is shared, so that setting one alias leaves the others alone."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _put(root: Any, override: Override) -> list[Path]:
    """Set the value; gives the paths that are the override's: containers that it created, then its own."""
    container = root
    path: Path = ()
    created = []
    for depth, key in enumerate(override.keys):
        step = _step(container, key, path, override)
        path = (*path, step)
        if depth == len(override.keys) - 1:
            container[step] = override.value
            break
        if isinstance(container, dict) and (container.get(key) is None or container[key] is True):
            container[key] = {}  # an optional part that the file leaves out or only switches on: `limits`, `stream`
            created.append(path)
        container = container[step]
    return [*created, path]


def _step(container: Any, key: str, path: Path, override: Override) -> str | int:
    if isinstance(container, dict):
        return key
    name = ".".join(str(part) for part in path) or "the recipe"
    if not isinstance(container, list):
        message = f"`{name}` is {found(container)} and has no `{key}`"
        raise RecipeError(message, place=override.place)
    if key.isdecimal() and int(key) < len(container):
        return int(key)
    message = f"`{name}` has no entry `{key}`"
    raise RecipeError(message, place=override.place, hint=_entries(container))


def _entries(entries: list[Any]) -> str:
    if not entries:
        return "it is empty"
    words = [str(entry.get("method") or entry.get("format")) if isinstance(entry, dict) else "?" for entry in entries]
    return "entries are numbered from 0: " + ", ".join(f"{index} ({word})" for index, word in enumerate(words))

"""A place of a recipe: its value, its part of the JSON Schema, where it is in the file, and what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.recipe.choice import formats, methods
from compressor.recipe.words import Schema, alternatives, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.errors import Place
    from compressor.recipe.yaml12 import Document, Path


LISTS = {"steps": ("method", methods), "exports": ("format", formats)}
"""Key of a list -> the key by which its entries are told apart, and what that may be."""


def is_entry(path: Path) -> bool:
    """Whether this is a step or an export."""
    return len(path) == 2 and path[0] in LISTS


def is_in_entry(path: Path) -> bool:
    """Whether this is a step, an export, or something of one."""
    return len(path) >= 2 and path[0] in LISTS


def called(path: Path, document: Document) -> str:
    """What messages call a place."""
    if not path:
        return f"the {document.noun}"
    last = path[-1]
    return f"entry {last} of `{path[-2]}`" if isinstance(last, int) else f"`{last}`"


def owner_of(path: Path, document: Document) -> str:
    """What an option belongs to: a method or format by its word, a part of the recipe by its key."""
    if not path:
        return f"a {document.noun}"
    if is_entry(path):
        entry = value_at(path, document.value)
        word = entry.get(LISTS[str(path[0])][0]) if isinstance(entry, dict) else None
        if isinstance(word, str):
            return f"`{word}`"
    return called(path, document)


def value_at(path: Sequence[str | int], root: Any) -> Any:
    """The value at a place of the recipe `root`."""
    for part in path:
        root = root[part]
    return root


def place_of(document: Document, path: Path) -> Place | None:
    """Where the value is, or the nearest thing around it."""
    for length in range(len(path), -1, -1):
        place = document.values.get(path[:length])
        if place is not None:
            return place
    return None


def schema_at(path: Sequence[str | int], document: Document) -> Schema:
    """The part of the JSON Schema for this place of the file; empty if there is none."""
    definitions = document.schema["$defs"]
    here: Schema = document.schema
    for depth, part in enumerate(path):
        here = _inside(here, part, definitions)
        if depth == 1 and path[0] in LISTS:
            word = value_at(path[:2], document.value)
            chosen = word.get(LISTS[str(path[0])][0]) if isinstance(word, dict) else None
            reference = here.get("discriminator", {}).get("mapping", {}).get(chosen)
            here = resolve({"$ref": reference}, definitions) if reference else {}
    return _without_null(here, definitions)


def options_at(path: Sequence[str | int], document: Document) -> dict[str, Schema]:
    """The keys that the mapping at this place may have, each with its part of the JSON Schema."""
    return _properties(schema_at(path, document), document.schema["$defs"])


def _properties(here: Schema, definitions: Schema) -> dict[str, Schema]:
    choices = [resolve(choice, definitions) for choice in (here, *alternatives(here))]
    return {name: option for choice in choices for name, option in choice.get("properties", {}).items()}


def group_of(key: str, owner: Sequence[str | int], document: Document) -> str | None:
    """The option of `owner` whose value is a mapping with this key, if `owner` has no such key itself."""
    options = options_at(owner, document)
    groups = (name for name, option in options.items() if key in _properties(option, document.schema["$defs"]))
    return None if key in options else next(groups, None)


def _without_null(here: Schema, definitions: Schema) -> Schema:
    """What an optional value is if it is not left out."""
    options = alternatives(here)
    return resolve(options[0] if len(options) == 1 else here, definitions)


def _inside(here: Schema, part: str | int, definitions: Schema) -> Schema:
    here = resolve(here, definitions)
    options = [resolve(option, definitions) for option in (here, *alternatives(here))]
    for option in options:
        if isinstance(part, int) and "items" in option:
            return dict(option["items"])
        if part in option.get("properties", {}):
            return dict(option["properties"][part])
        if isinstance(option.get("additionalProperties"), dict):
            return dict(option["additionalProperties"])
    return {}

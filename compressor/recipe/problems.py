"""Pydantic's errors in our words: the place in the file, what was found, what was expected, the nearest name."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from compressor.errors import RecipeError
from compressor.plain_yaml import dump
from compressor.recipe.hints import did_you_mean, hint_for, quoted
from compressor.recipe.lookup import (
    LISTS,
    called,
    group_of,
    is_entry,
    is_in_entry,
    options_at,
    owner_of,
    place_of,
    schema_at,
    value_at,
)
from compressor.recipe.overrides import SET
from compressor.recipe.words import Schema, expected, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from compressor.recipe.yaml12 import Document, Path

_MOST_NAMES = 12
_SURE = 0.8
"""How alike a word is to the one that is meant, if nothing else says that it stands for it."""


def translate(error: ValidationError, document: Document) -> tuple[RecipeError, ...]:
    """Every mistake once, those of the reading included, in the file's order."""
    problems: dict[tuple[Path, str], RecipeError] = {}
    for detail in error.errors(include_url=False):
        if _follows_from_others(detail):
            continue
        path = _path_in_file(detail, document.value)
        # a union gives one detail per member; together they are one mistake
        kind = detail["type"] if detail["type"] in ("missing", "value_error") else "value"
        problems.setdefault((path, kind), _problem(detail, path, document))
    seen = {mistake.place for mistake in document.errors}
    later = [problem for problem in problems.values() if problem.place not in seen]
    return tuple(sorted((*document.errors, *later), key=_order))


def _follows_from_others(detail: ErrorDetails) -> bool:
    """A list counts as too short if its entries are wrong; those have errors of their own."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _order(problem: RecipeError) -> tuple[int, int, int]:
    place = problem.place
    if place is None or place.line is None:
        return (0 if place is None or not place.file.startswith("--") else 1, 0, 0)
    return (0, place.line, place.column or 0)


def _path_in_file(detail: ErrorDetails, root: Any) -> Path:
    """Pydantic's location without the words that are not in the file: names of union members and of tags."""
    location = detail["loc"]
    if len(location) > 2 and location[0] in LISTS:
        location = (*location[:2], *location[3:])
    path: Path = ()
    value = root
    for part in location:
        if _has(value, part):
            value = value[part]
            path = (*path, part)
    return (*path, location[-1]) if detail["type"] == "missing" else path


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _problem(detail: ErrorDetails, path: Path, document: Document) -> RecipeError:
    kind = detail["type"]
    if kind in ("value_error", "assertion_error"):
        return _rule(detail, path, document)
    if kind in _NO_MAPPING and is_entry(path):
        return _not_an_entry(path, document)
    return _BY_TYPE.get(kind, _wrong_value)(path, document)


def _unknown_key(path: Path, document: Document) -> RecipeError:
    owner, key = path[:-1], str(path[-1])
    group = group_of(key, owner, document)
    if group is not None:
        return _in_a_group(path, group, document)
    known = list(options_at(owner, document))
    name = owner_of(owner, document)
    message = f"{name} has no {'option' if is_in_entry(owner) else 'key'} `{key}`"
    hint = did_you_mean(key, known) or (f"it has {quoted(known)}" if len(known) <= _MOST_NAMES else None)
    if hint is None and owner[0] == "steps":
        hint = f"{name.replace('`', '')} has many options: `compressor methods show {name.strip('`')}` lists them"
    return RecipeError(message, place=document.keys.get(path), hint=hint)


def _in_a_group(path: Path, group: str, document: Document) -> RecipeError:
    """An option that belongs into a group of options beside it; the hint is the line to write."""
    owner, key = path[:-1], str(path[-1])
    place = document.keys.get(path)
    entry = value_at(owner, document.value)
    if place is not None and place.file.startswith(SET):
        line = f"{SET}{'.'.join(map(str, (*owner, group, key)))}={_flow(entry[key])}"
    else:
        beside = {name: value for name, value in entry.items() if group_of(name, owner, document) == group}
        inside = entry[group] if isinstance(entry.get(group), dict) else {}
        line = f"{group}: {_flow({**inside, **beside})}"
    message = f"`{key}` of {owner_of(owner, document)} is an option of `{group}`"
    return RecipeError(message, place=place, hint=f"write `{line}`")


def _missing_key(path: Path, document: Document) -> RecipeError:
    owner, key = path[:-1], str(path[-1])
    here = schema_at(path, document)
    example = f", for example `{key}: {_flow(here['examples'][0])}`" if "examples" in here else ""
    message = f"{owner_of(owner, document)} needs `{key}`"
    hint = f"`{key}` is {expected(here, document.schema['$defs'])}{example}"
    return RecipeError(message, place=place_of(document, owner), hint=hint)


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    return dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]


def _no_word(path: Path, document: Document) -> RecipeError:
    word, choices = LISTS[str(path[0])]
    message = f"{owner_of(path, document)} has no `{word}`"
    return RecipeError(message, place=place_of(document, path), hint=_as_key(path, document) or _listing(word, choices))


def _as_key(path: Path, document: Document) -> str | None:
    """How an entry is written whose word was taken for a key, as other tools do: `tie_layers: {groups: 2}`."""
    word, choices = LISTS[str(path[0])]
    entry = value_at(path, document.value)
    for key, options in entry.items():
        near = difflib.get_close_matches(
            str(key), list(choices()), n=1, cutoff=_SURE if isinstance(options, dict) else 1.0
        )
        if near:
            inside = options if isinstance(options, dict) else {}
            beside = {name: value for name, value in entry.items() if name != key}
            return f"write `- {_flow({word: near[0], **inside, **beside})}`"
    return None


def _unknown_word(path: Path, document: Document) -> RecipeError:
    word, choices = LISTS[str(path[0])]
    value = value_at(path, document.value)[word]
    place = document.values.get((*path, word))
    listing = _listing(word, choices)
    if not isinstance(value, str):
        return RecipeError(f"`{word}` is {found(value)}, expected a name", place=place, hint=listing)
    message = f"unknown {word} `{value}`"
    return RecipeError(message, place=place, hint=did_you_mean(value, choices()) or listing)


def _listing(word: str, choices: Callable[[], Iterable[str]]) -> str:
    return f"{word}s: {quoted(choices())}"


def _not_an_entry(path: Path, document: Document) -> RecipeError:
    word, choices = LISTS[str(path[0])]
    value = value_at(path, document.value)
    message = f"entry {path[1]} of `{path[0]}` is {found(value)}, expected a mapping with a `{word}`"
    meant = value if isinstance(value, str) and value in choices() else next(iter(choices()), "")
    hint = f"write `- {word}: {meant}`" if meant else None
    return RecipeError(message, place=place_of(document, path), hint=hint)


def _rule(detail: ErrorDetails, path: Path, document: Document) -> RecipeError:
    """A rule of a model's own; if its text names an option of the file, that is the place."""
    message = str(detail.get("ctx", {}).get("error", detail["msg"]))
    value = value_at(path, document.value)
    for name in re.findall(r"`(\w+)", message):
        if isinstance(value, dict) and name in value:
            return RecipeError(message, place=document.keys.get((*path, name)))
    return RecipeError(message, place=place_of(document, path))


def _wrong_value(path: Path, document: Document) -> RecipeError:
    value = value_at(path, document.value)
    here = schema_at(path, document)
    wanted = expected(here, document.schema["$defs"])
    message = f"{called(path, document)} is {_found(value, here)}, expected {wanted}"
    return RecipeError(message, place=place_of(document, path), hint=hint_for(value, here, wanted))


_NO_MAPPING = ("model_attributes_type", "model_type", "dict_type")
_BY_TYPE = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "union_tag_not_found": _no_word,
    "union_tag_invalid": _unknown_word,
}


def _found(value: Any, here: Schema) -> str:
    if isinstance(value, list) and here.get("type") == "array":
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str) and "maxLength" in here:
        return f"text of {len(value)} characters" if value else "empty text"
    return found(value)

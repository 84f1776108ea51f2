"""Pydantic's errors in our words: the place in the file, what was found, what was expected, the nearest name."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from compressor.errors import Place, RecipeError
from compressor.recipe.choice import formats, methods
from compressor.recipe.jsonschema import schema
from compressor.recipe.words import Schema, expected, found, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from compressor.recipe.yaml12 import Document, Path

_LISTS = {"steps": ("method", methods), "exports": ("format", formats)}
_YAML_1_1_BOOLS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_MOST_NAMES = 12


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
    """A list counts as too short where its entries are wrong; those have errors of their own."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _order(problem: RecipeError) -> tuple[int, int, int]:
    place = problem.place
    if place is None or place.line is None:
        return (0 if place is None or not place.file.startswith("--set") else 1, 0, 0)
    return (0, place.line, place.column or 0)


def _path_in_file(detail: ErrorDetails, root: Any) -> Path:
    """Pydantic's location without the words that are not in the file: names of union members and of tags."""
    location = detail["loc"]
    if len(location) > 2 and location[0] in _LISTS:
        location = (*location[:2], *location[3:])
    path: Path = ()
    value = root
    for part in location:
        if not _has(value, part):
            return (*path, part) if detail["type"] == "missing" else path
        value = value[part]
        path = (*path, part)
    return path


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _problem(detail: ErrorDetails, path: Path, document: Document) -> RecipeError:
    kind = detail["type"]
    if kind in ("value_error", "assertion_error"):
        return _rule(detail, path, document)
    if kind in _NO_MAPPING and _is_entry(path):
        return _not_an_entry(path, document)
    return _BY_TYPE.get(kind, _wrong_value)(path, document)


def _unknown_key(path: Path, document: Document) -> RecipeError:
    owner, key = path[:-1], str(path[-1])
    known = list(_schema_at(owner, document.value).get("properties", {}))
    name = _owner(owner, document.value)
    message = f"{name} has no {'option' if _is_step(owner) else 'key'} `{key}`"
    hint = _did_you_mean(key, known) or (f"it has {_names(known)}" if len(known) <= _MOST_NAMES else None)
    if hint is None and owner[0] == "steps":
        hint = f"{name.replace('`', '')} has many options: `compressor methods show {name.strip('`')}` lists them"
    return RecipeError(message, place=document.keys.get(path), hint=hint)


def _missing_key(path: Path, document: Document) -> RecipeError:
    owner, key = path[:-1], str(path[-1])
    here = _schema_at(path, document.value)
    example = f", for example `{key}: {_flow(here['examples'][0])}`" if "examples" in here else ""
    message = f"{_owner(owner, document.value)} needs `{key}`"
    hint = f"`{key}` is {expected(here, schema()['$defs'])}{example}"
    return RecipeError(message, place=_place(document, owner), hint=hint)


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    return str(value)


def _no_word(path: Path, document: Document) -> RecipeError:
    word, choices = _LISTS[str(path[0])]
    message = f"{_owner(path, document.value)} has no `{word}`"
    return RecipeError(message, place=_place(document, path), hint=f"{word}s: {_names(choices())}")


def _unknown_word(path: Path, document: Document) -> RecipeError:
    word, choices = _LISTS[str(path[0])]
    value = _at(path, document.value)[word]
    place = document.values.get((*path, word))
    listing = f"{word}s: {_names(choices())}"
    if not isinstance(value, str):
        return RecipeError(f"`{word}` is {found(value)}, expected a name", place=place, hint=listing)
    message = f"there is no {word} `{value}`"
    return RecipeError(message, place=place, hint=_did_you_mean(value, choices()) or listing)


def _not_an_entry(path: Path, document: Document) -> RecipeError:
    word, choices = _LISTS[str(path[0])]
    value = _at(path, document.value)
    message = f"entry {path[1]} of `{path[0]}` is {found(value)}, expected a mapping with a `{word}`"
    hint = f"write `- {word}: {value if value in choices() else next(iter(choices()))}`" if choices() else None
    return RecipeError(message, place=_place(document, path), hint=hint)


def _rule(detail: ErrorDetails, path: Path, document: Document) -> RecipeError:
    """A rule of a model's own; where its text names an option of the file, that is the place."""
    message = str(detail.get("ctx", {}).get("error", detail["msg"]))
    value = _at(path, document.value)
    for name in re.findall(r"`(\w+)", message):
        if isinstance(value, dict) and name in value:
            return RecipeError(message, place=document.keys.get((*path, name)))
    return RecipeError(message, place=_place(document, path))


def _wrong_value(path: Path, document: Document) -> RecipeError:
    value = _at(path, document.value)
    here = _schema_at(path, document.value)
    wanted = expected(here, schema()["$defs"])
    message = f"{_called(path)} is {_found(value, here)}, expected {wanted}"
    return RecipeError(message, place=_place(document, path), hint=_hint(value, here, wanted))


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


def _hint(value: Any, here: Schema, wanted: str) -> str | None:
    if not isinstance(value, str):
        return None
    if "enum" in here or "const" in here:
        return _did_you_mean(value, [str(word) for word in here.get("enum", [here.get("const")])])
    if here.get("type") == "array":
        return f"write `[{value}]`"
    if here.get("type") == "boolean" and value.lower() in _YAML_1_1_BOOLS:
        return f"write `{_YAML_1_1_BOOLS[value.lower()]}`: in YAML 1.2 `{value}` is text"
    if "number" in wanted and _is_number(value):
        return "write the number without quotes, underscores or spaces"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _did_you_mean(word: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else None


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_entry(path: Path) -> bool:
    return len(path) == 2 and path[0] in _LISTS


def _is_step(path: Path) -> bool:
    return len(path) >= 2 and path[0] in _LISTS


def _called(path: Path) -> str:
    if not path:
        return "the recipe"
    last = path[-1]
    return f"entry {last} of `{path[-2]}`" if isinstance(last, int) else f"`{last}`"


def _owner(path: Path, root: Any) -> str:
    """What an option belongs to: a method or format by its word, a part of the recipe by its key."""
    if not path:
        return "a recipe"
    if _is_entry(path):
        entry = _at(path, root)
        word = entry.get(_LISTS[str(path[0])][0]) if isinstance(entry, dict) else None
        if isinstance(word, str):
            return f"`{word}`"
    return _called(path)


def _at(path: Sequence[str | int], root: Any) -> Any:
    for part in path:
        root = root[part]
    return root


def _place(document: Document, path: Path) -> Place | None:
    """Where the value stands, or the nearest thing around it."""
    for length in range(len(path), -1, -1):
        place = document.values.get(path[:length])
        if place is not None:
            return place
    return None


def _schema_at(path: Sequence[str | int], root: Any) -> Schema:
    """The part of the JSON Schema that speaks about this place of the file; empty where none does."""
    definitions = schema()["$defs"]
    here: Schema = schema()
    for depth, part in enumerate(path):
        here = _inside(here, part, definitions)
        if depth == 1 and path[0] in _LISTS:
            word = _at(path[:2], root)
            chosen = word.get(_LISTS[str(path[0])][0]) if isinstance(word, dict) else None
            reference = here.get("discriminator", {}).get("mapping", {}).get(chosen)
            here = resolve({"$ref": reference}, definitions) if reference else {}
    return _without_null(here, definitions)


def _without_null(here: Schema, definitions: Schema) -> Schema:
    """What an optional value is where it is given."""
    options = [option for option in here.get("anyOf", ()) if option.get("type") != "null"]
    return resolve(options[0] if len(options) == 1 else here, definitions)


def _inside(here: Schema, part: str | int, definitions: Schema) -> Schema:
    here = resolve(here, definitions)
    options = [resolve(option, definitions) for option in (here, *here.get("anyOf", ()))]
    for option in options:
        if isinstance(part, int) and "items" in option:
            return dict(option["items"])
        if part in option.get("properties", {}):
            return dict(option["properties"][part])
        if isinstance(option.get("additionalProperties"), dict):
            return dict(option["additionalProperties"])
    return {}

"""How values and what is expected of them are called in errors and in help; works on JSON Schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}


def found(value: Any) -> str:
    """What a value of a recipe is, such as `the text `0.5``."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value!r}"
        case str():
            return f"the text `{value if len(value) <= 40 else value[:37] + '...'}`"
        case list():
            return "a list"
    return "a mapping"


def expected(schema: Schema, definitions: Schema) -> str:
    """What a JSON Schema asks for, in words: `a number above 0 and below 1`, `` `units` or `weights` ``.

    Null, which means that a key is left out, is not mentioned.
    """
    schema = resolve(schema, definitions)
    literals = [schema["const"]] if "const" in schema else schema.get("enum")
    if literals is not None:
        return any_of(_literal(value) for value in literals)
    options = alternatives(schema)
    if options:
        return any_of(expected(option, definitions) for option in options)
    kind = schema.get("type", "")
    return _TYPES.get(kind, "a value") + _details(kind, schema, definitions)


def _details(kind: str, schema: Schema, definitions: Schema) -> str:
    if kind in ("integer", "number"):
        return _range(schema)
    if kind == "string":
        pattern = f" that matches `{schema['pattern']}`" if "pattern" in schema else ""
        return _lengths(schema.get("minLength"), schema.get("maxLength"), "character", "characters") + pattern
    if kind == "object":
        word = schema.get("properties", {}).get("method", {}).get("const")
        return f" of options of `{word}`" if word else ""
    return _entries(schema, definitions) if kind == "array" else ""


def alternatives(schema: Schema) -> list[Schema]:
    """What a value may be, if it may be several things; without null, which means that a key is left out."""
    options = (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    return [option for option in options if option.get("type") != "null"]


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """The schema behind a `$ref`."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def any_of(words: Iterable[str]) -> str:
    """`a, b or c`, each once."""
    unique = list(dict.fromkeys(words))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} or {unique[-1]}"


def _literal(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value).lower()


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {_bound(low)} to {_bound(high)}"
    bounds = (
        ("at least", low),
        ("above", schema.get("exclusiveMinimum")),
        ("at most", high),
        ("below", schema.get("exclusiveMaximum")),
    )
    return _and(f"{word} {_bound(bound)}" for word, bound in bounds if bound is not None)


def _bound(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _lengths(low: int | None, high: int | None, one: str, many: str) -> str:
    words = _and(f"{word} {count}" for word, count in (("at least", low), ("at most", high)) if count is not None)
    return f" of{words} {one if (low if high is None else high) == 1 else many}" if words else ""


def _and(parts: Iterable[str]) -> str:
    words = " and ".join(parts)
    return f" {words}" if words else ""


def _entries(schema: Schema, definitions: Schema) -> str:
    words = _lengths(schema.get("minItems"), schema.get("maxItems"), "entry", "entries")
    items = resolve(schema.get("items", {}), definitions)
    inner = "a value" if "oneOf" in items else expected(items, definitions)
    return words if inner == "a value" else f"{words}, each entry {inner}"

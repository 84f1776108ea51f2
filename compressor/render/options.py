"""Options of a recipe without those that are at their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def short(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe as a person would write it; what is not known here stays as it is."""
    kept = {name: value for name, value in recipe.items() if name not in ("steps", "exports", "limits")}
    if isinstance(recipe.get("steps"), list):
        kept["steps"] = [without_defaults("method", entry) for entry in recipe["steps"]]
    if isinstance(recipe.get("exports"), list):
        kept["exports"] = [without_defaults("format", entry) for entry in recipe["exports"]]
    limits = {name: value for name, value in (recipe.get("limits") or {}).items() if value is not None}
    return {**kept, **({"limits": limits} if limits else {})}


def without_defaults(key: Literal["method", "format"], entry: Any) -> Any:
    """A step or an export, `key` first, with the options that differ from their defaults; all if it is not known."""
    kind = _model(key, entry.get(key)) if isinstance(entry, dict) else None
    if kind is None:
        return entry
    return {key: entry[key]} | _changed(kind, entry)


def _changed(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is at its default, in options of options too."""
    defaults, kept = _defaults(kind), {}
    for name, value in values.items():
        inner = _inner(kind, name) if isinstance(value, dict) else None
        shorter = value if inner is None else _changed(inner, value)
        if not (name in defaults and value == defaults[name]) and not (inner is not None and not shorter):
            kept[name] = shorter
    return kept


def _inner(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of an option that holds further options."""
    from pydantic import BaseModel

    field = kind.model_fields.get(name)
    if field is None:
        return None
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((found for found in kinds if isinstance(found, type) and issubclass(found, BaseModel)), None)


def _model(key: str, word: Any) -> type[BaseModel] | None:
    from compressor.formats import EXPORTERS
    from compressor.methods import METHODS

    if key == "method":
        return METHODS.get(word)
    return EXPORTERS[word].options if word in EXPORTERS else None


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    """As a report holds them, in JSON's types."""
    from pydantic_core import to_jsonable_python

    fields = kind.model_fields.items()
    return {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in fields
        if not field.is_required()
    }

"""The JSON Schema of a recipe, for editors and for the words of our own errors."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from compressor.recipe.model import Recipe

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the recipes that this version reads."""
    return schema_of(Recipe, "Recipe of compressor")


def schema_of(model: type[BaseModel], title: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the documents that `model` reads."""
    return {"$schema": DIALECT, "title": title, **_without_titles(model.model_json_schema())}


def _without_titles(value: Any, *, names: bool = False) -> Any:
    """Drop pydantic's generated titles; `names`: the keys are names of properties and not words of the schema."""
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_titles(item, names=key in ("properties", "$defs") and not names)
        for key, item in value.items()
        if names or key != "title"
    }

"""The JSON Schema of a recipe, for editors and for the words of our own errors."""

from __future__ import annotations

from functools import cache
from typing import Any

from compressor.recipe.model import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the recipes that this version reads."""
    built = _without_titles(Recipe.model_json_schema())
    return {"$schema": DIALECT, "title": "Recipe of compressor", **built}


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

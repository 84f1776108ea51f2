"""From a name or a path to a valid recipe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import ValidationError

from compressor.errors import Place, RecipeError, RecipeErrors
from compressor.recipe import overrides as overriding
from compressor.recipe import problems, source, yaml12
from compressor.recipe.model import Recipe
from compressor.recipe.words import found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.recipe.yaml12 import Document


def load(path_or_name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe.

    Args:
        path_or_name: Name of a shipped recipe, or path of a YAML file.
        overrides: `KEY=VALUE` texts such as `steps.0.ratio=0.7`; the values are YAML.

    Raises:
        RecipeError: The file cannot be read or is not YAML.
        RecipeErrors: It is YAML but not a recipe; holds every mistake.
    """
    text = source.read(path_or_name)
    document = yaml12.parse(text.text, text.file)
    if document is None or document.value is None:
        hint = "start from a shipped one: `compressor recipes copy quickstart`"
        raise RecipeError("the recipe is empty", place=Place(text.file), hint=hint)
    if not isinstance(document.value, dict):
        message = f"a recipe is a mapping, this is {found(document.value)}"
        raise RecipeError(message, place=document.values[()], hint="begin with `schema_version: 1`")
    return _validated(overriding.apply(document, [overriding.read(override) for override in overrides]))


def _validated(document: Document) -> Recipe:
    try:
        # JSON is the one form in which strict means what a recipe means: 1 is a number, "1" and true are none
        recipe = Recipe.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        raise RecipeErrors(problems.translate(error, document)) from None
    if document.errors:
        raise RecipeErrors(document.errors)
    return recipe

"""From a name or a path to a valid recipe, and from a text to any document that is read as strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from compressor.errors import Place, RecipeError, RecipeErrors
from compressor.recipe import overrides as overriding
from compressor.recipe import problems, source, yaml12
from compressor.recipe.jsonschema import schema
from compressor.recipe.model import Recipe
from compressor.recipe.words import found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.recipe.source import Source
    from compressor.recipe.words import Schema
    from compressor.recipe.yaml12 import Document

Model = TypeVar("Model", bound=BaseModel)


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
    document = read_document(text, "recipe", schema(), "start from a shipped one: `compressor recipes copy quickstart`")
    return validated(Recipe, overriding.apply(document, [overriding.read(override) for override in overrides]))


def read_document(text: Source, noun: str, json_schema: Schema, start: str) -> Document:
    """The mapping that a text holds, with the place of each part.

    Args:
        text: YAML.
        noun: What messages call it.
        json_schema: What it will be held against.
        start: The remedy if there is nothing in it.

    Raises:
        RecipeError: It is not YAML, or not a mapping.
    """
    document = yaml12.parse(text.text, text.file, noun)
    if document is None or document.value is None:
        raise RecipeError(f"the {noun} is empty", place=Place(text.file), hint=start)
    if not isinstance(document.value, dict):
        message = f"a {noun} is a mapping, this is {found(document.value)}"
        raise RecipeError(message, place=document.values[()], hint="begin with `schema_version: 1`")
    return replace(document, schema=json_schema)


def validated(model: type[Model], document: Document) -> Model:
    """What a document says, as `model` reads it.

    Raises:
        RecipeErrors: Every mistake in it.
    """
    try:
        # JSON is the one form in which strict means what a recipe means: 1 is a number, "1" and true are none
        result = model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        raise RecipeErrors(problems.translate(error, document)) from None
    if document.errors:
        raise RecipeErrors(document.errors)
    return result

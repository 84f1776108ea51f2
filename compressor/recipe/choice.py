"""Entries of a list that are told apart by a key of theirs: steps by `method`, exports by `format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from compressor.formats import EXPORTERS
from compressor.methods import METHODS

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

Models = Mapping[str, type[BaseModel]]


@dataclass(frozen=True)
class ChosenBy:
    """Annotation: one of several models, chosen by the value of `key`.

    Pydantic's own discriminated union is a static annotation and refuses a single choice; these are found at run time.
    """

    key: str
    choices: Callable[[], Models]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A tagged union over the choices."""
        models = {word: handler.generate_schema(model) for word, model in self.choices().items()}
        return core_schema.tagged_union_schema(models, self.key)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The key has a default in its model, but an entry of the list must give it."""
        json_schema = handler(schema)
        options = [{**option, "required": [self.key]} for option in json_schema["oneOf"]]
        return {**json_schema, "oneOf": options}


@cache
def methods() -> Models:
    """Every method by its recipe word."""
    return dict(METHODS)


@cache
def formats() -> Models:
    """Options of every exporter by its format."""
    return {word: exporter.options for word, exporter in EXPORTERS.items()}

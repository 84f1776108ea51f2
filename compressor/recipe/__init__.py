"""Recipes: strict YAML in, a frozen `Recipe` out, and errors that point into the file."""

from compressor.recipe.jsonschema import schema
from compressor.recipe.loading import load
from compressor.recipe.model import Limits, Recipe
from compressor.recipe.source import library, names

__all__ = ["Limits", "Recipe", "library", "load", "names", "schema"]

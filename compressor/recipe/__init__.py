"""Recipes: strict YAML in, a frozen `Recipe` out, and errors that point into the file."""

from compressor.recipe.jsonschema import schema
from compressor.recipe.loading import load
from compressor.recipe.model import ExportOptions, Limits, Recipe
from compressor.recipe.source import library, names

__all__ = ["ExportOptions", "Limits", "Recipe", "library", "load", "names", "schema"]

"""`compressor validate`: check recipes without running them."""

from typing import Annotated, Any

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, SetOption, argument
from compressor.cli.output import complain, emit, emit_json, say
from compressor.errors import CompressorError, RecipeError, RecipeErrors


def validate(
    recipes: Annotated[
        list[str],
        argument("RECIPE...", "Names of shipped recipes or paths of YAML files.", completion.recipe_names),
    ],
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check recipes: every mistake with its place, without loading a model.

    Exits with 2 if one is not valid.
    """
    from compressor.recipe import load

    rows = []
    for name in recipes:
        try:
            recipe = load(name, overrides or ())
        except RecipeError as error:
            rows.append({"recipe": name, "valid": False, "errors": [_plain(one) for one in _each(error)]})
            if not json:
                complain(error)
                say("")
        else:
            rows.append({"recipe": name, "valid": True, "sha256": recipe.sha256(), "resolved": recipe.resolved()})
            if not json:
                words = ", ".join(step.method for step in recipe.steps) or "no steps"
                emit(f"{name} is valid: {words}; exports {', '.join(entry.format for entry in recipe.exports)}")
    if json:
        emit_json(rows)
    if not all(row["valid"] for row in rows):
        raise typer.Exit(2)


def _each(error: RecipeError) -> tuple[RecipeError, ...]:
    return error.errors if isinstance(error, RecipeErrors) else (error,)


def _plain(error: CompressorError) -> dict[str, Any]:
    place = error.place
    return {
        "message": error.message,
        "hint": error.hint,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
    }

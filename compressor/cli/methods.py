"""`compressor methods`: what a step can be."""

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption
from compressor.cli.output import columns, emit_json, emit_rich
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="List the methods and show their options.")


@app.command("list")
def list_methods(json: JsonOption = False) -> None:
    """List the methods."""
    from compressor.methods import METHODS

    if json:
        emit_json([{"name": name, "summary": method.summary} for name, method in METHODS.items()])
    else:
        emit_rich(columns(("method", ""), [(name, method.summary) for name, method in METHODS.items()]))


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Recipe word.", autocompletion=completion.method_names, show_default=False),
    ],
    json: JsonOption = False,
) -> None:
    """Show a method's options: what they are, their range and default, and an example."""
    from compressor.methods import METHODS

    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"methods: {', '.join(METHODS)}"
        raise UsageError(f"unknown method `{name}`", hint=hint)
    schema = METHODS[name].model_json_schema()
    if json:
        emit_json(schema)
    else:
        _show(name, schema)


def _show(name: str, schema: dict[str, Any]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = [Text(name, style="bold"), Text(_paragraphs(schema["description"])), Text()]
    for option, what, description in _options(schema):
        parts += [Text.assemble((option, "bold cyan"), "  ", what), Padding(Text(description), (0, 0, 1, 4))]
    example = ["steps:", *_example(name)]
    emit_rich(*parts, Text("Example", style="bold"), Text("\n".join(example)), prose=True)


def _options(schema: dict[str, Any]) -> "Iterator[tuple[str, str, str]]":
    from compressor.recipe.words import expected

    for option, field in schema["properties"].items():
        if option == "method":
            continue
        what = expected(field, schema.get("$defs", {}))
        default = field.get("default")
        needed = "required" if option in schema.get("required", ()) else f"default {_yaml(default)}"
        what = what if default is None and option not in schema.get("required", ()) else f"{what}; {needed}"
        yield option, what, _paragraphs(field.get("description", ""))


def _example(name: str) -> list[str]:
    """The first step of a shipped recipe that uses the method, as it stands there."""
    from compressor.recipe import names, source

    for recipe in names():
        lines = source.read(recipe).text.splitlines()
        starts = [index for index, line in enumerate(lines) if line.strip() == f"- method: {name}"]
        if starts:
            first = starts[0]
            indent = len(lines[first]) - len(lines[first].lstrip())
            end = next(
                (i for i in range(first + 1, len(lines)) if not lines[i].startswith(" " * (indent + 2))), len(lines)
            )
            return lines[first:end]
    return [f"  - method: {name}"]


def _paragraphs(text: str) -> str:
    """Docstring lines joined to paragraphs, so that the terminal wraps them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _yaml(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)

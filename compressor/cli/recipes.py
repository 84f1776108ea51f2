"""`compressor recipes`: the library of shipped recipes."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, argument
from compressor.cli.output import columns, emit, emit_json, emit_rich, say
from compressor.errors import OutputError

SCHEMA_FILE = "recipe.schema.json"
"""What the first line of a shipped recipe names for editors."""

app = typer.Typer(help="List, show and copy the shipped recipes.")

NameArgument = Annotated[
    str,
    argument("NAME", "Name of a shipped recipe.", completion.shipped_names),
]


@app.command("list")
def list_recipes(json: JsonOption = False) -> None:
    """List the shipped recipes."""
    from compressor.recipe import load, names

    rows = [
        {
            "name": name,
            "steps": [step.method for step in recipe.steps],
            "exports": [entry.format for entry in recipe.exports],
            "description": recipe.description,
        }
        for name in names()
        for recipe in [load(name)]
    ]
    if json:
        emit_json(rows)
    else:
        table = [(str(row["name"]), ", ".join(row["steps"]), str(row["description"])) for row in rows]
        emit_rich(columns(("name", "steps", "description"), table))


@app.command()
def show(name: NameArgument) -> None:
    """Write the YAML of a recipe to standard output."""
    from compressor.recipe import source

    emit(source.read(name).text)


@app.command()
def copy(
    name: NameArgument,
    to: Annotated[str | None, typer.Argument(metavar="[FILE]", help="Where to. [default: NAME.yaml]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Copy a recipe to a file of yours, to change it."""
    from compressor.files import write_whole
    from compressor.recipe import source

    found = source.read(name)
    target = Path(to) if to is not None else Path(f"{Path(name).stem}.yaml")
    if target.is_dir():
        target /= f"{Path(name).stem}.yaml"
    if target.exists() and not force:
        raise OutputError(f"`{target}` exists", hint="give another name, or --force")
    write_whole(target, found.text.encode())
    say(f"copied to {target}")
    beside = target.with_name(SCHEMA_FILE)
    if SCHEMA_FILE in found.text.partition("\n")[0] and not beside.exists():
        write_whole(beside, (source.library() / SCHEMA_FILE).read_bytes())
        say(f"{beside} is for your editor: it completes and checks by it")


@app.command()
def schema() -> None:
    """Write the JSON Schema of recipes, with which an editor completes and checks."""
    from compressor.recipe import schema as build

    emit_json(build())

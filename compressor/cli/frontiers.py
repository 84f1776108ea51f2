"""`compressor frontiers`: what searches found on the samples, to know what to expect for a model like one's own."""

from typing import Annotated

import typer

from compressor.cli.arguments import JsonOption
from compressor.cli.output import columns, emit, emit_json_text, emit_rich, say
from compressor.errors import UsageError

app = typer.Typer(help="Show what searches found on the samples: sizes, losses, recipes.")

FrontierArgument = Annotated[
    str,
    typer.Argument(metavar="FRONTIER", help="A name that `list` shows, or the folder of a search.", show_default=False),
]


@app.command("list")
def list_frontiers() -> None:
    """List the frontiers that come with the package."""
    from compressor.render.format import decimal_size
    from compressor.studies.search import known

    rows = []
    for name in known.names():
        found = known.read(name)
        sizes = f"{decimal_size(found.original_bytes)} to {decimal_size(found.points[0].bytes)}"
        rows.append((name, found.model, f"{found.original.metric} {found.original.value:.4f}", sizes))
    emit_rich(columns(("name", "model", "original", "bytes"), rows))


@app.command()
def show(
    name: FrontierArgument,
    point: Annotated[
        int | None, typer.Option("--recipe", metavar="POINT", help="Write the recipe of this point instead, as YAML.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the files of a frontier: how small, what they lose, by which steps."""
    from compressor.plain_yaml import dump
    from compressor.render import frontiers
    from compressor.studies.search import known

    found = known.read(name)
    if point is not None:
        chosen = next((one for one in found.points if one.number == point), None)
        if chosen is None:
            numbers = ", ".join(str(one.number) for one in found.points)
            raise UsageError(f"the frontier has no point {point}", hint=f"it has {numbers}")
        emit(
            dump(
                {"schema_version": 1, "name": f"{found.name}-{point}".lower(), **chosen.recipe.model_dump(mode="json")}
            )
        )
    elif json:
        emit_json_text(found.to_json())
    else:
        emit_rich(columns(frontiers.HEADER, frontiers.rows(found)))
        for line in frontiers.conditions(found):
            say(line)

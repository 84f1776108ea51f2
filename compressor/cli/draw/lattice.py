"""`compressor draw lattice`: the order of each recurrent layer's units, as facts and as a diagram."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from compressor.cli.arguments import JsonOption, TaskOption
from compressor.cli.output import emit, emit_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.surgery.units.order import Reading, Settings
    from compressor.task.guard import GuardedTask

SVG_FILE: Final = "lattice.svg"

Order = Literal["closure", "reachability"]
Scope = Literal["layer", "global"]


def lattice(
    task: TaskOption,
    percentile: Annotated[
        float,
        typer.Option(
            "--percentile",
            min=0.0,
            max=100.0,
            metavar="P",
            help="Leave out the weakest P per cent of the connections.",
        ),
    ] = 50.0,
    order: Annotated[
        Order, typer.Option("--order", help="How units are ordered; see the method `lattice`.")
    ] = "closure",
    scope: Annotated[
        Scope, typer.Option("--scope", help="One order for each layer, or one for all layers together.")
    ] = "layer",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help=f"Write the diagram, {SVG_FILE}, into this folder.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the order of each recurrent layer's units, as the method `lattice` sees it, and draw it."""
    from compressor.surgery.units.order import Settings
    from compressor.task.loading import load

    readings, refused = _read(load(task), Settings(percentile=percentile, order=order), scope)
    if json:
        emit_json({"layers": [_facts(reading) for reading in readings], "refused": refused})
    else:
        for line in [*(reading.facts for reading in readings), *refused.values()]:
            emit(line)
    if out is not None and readings:
        _write(readings, out)


def _read(task: "GuardedTask", settings: "Settings", scope: Scope) -> "tuple[list[Reading], dict[str, str]]":
    """The orders of a model's layers, and layer -> why its order cannot guide pruning."""
    from compressor.cli.progress import Terminal
    from compressor.errors import MethodError
    from compressor.methods.base import trace_example
    from compressor.surgery.trace.tracer import trace
    from compressor.surgery.units.connections import connections
    from compressor.surgery.units.order import read

    model = task.model().eval()
    readings: list[Reading] = []
    refused: dict[str, str] = {}
    with Terminal() as progress, progress.bar("ordering the units", None):
        seen = trace(model, trace_example(task))
        layers = connections(model, seen, None, scope=scope, combine=settings.combine)
        for layer in layers:
            try:
                readings.append(read(layer, settings))
            except MethodError as error:
                refused[layer.label] = error.message
    if not layers:
        raise MethodError("the model has no recurrent layer, so no units that drive each other")
    return readings, refused


def _facts(reading: "Reading") -> dict[str, Any]:
    order = reading.order
    assert order is not None
    return {
        "layer": reading.connections.label,
        "units": len(order.classes),
        "classes": order.count,
        "largest_class": order.largest,
        "irreducible": int(order.irreducible.sum()),
        "height": int(order.heights.max()),
        "covers": int(order.covers.counts().sum()),
        "kept": int(reading.kept.sum()),
        "connections": int(reading.connections.present.sum()),
        "connections_that_count": int(reading.passing.sum()),
    }


def _write(readings: "Sequence[Reading]", out: Path) -> None:
    from compressor.files import write_whole, writing
    from compressor.render.lattice import svg

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_whole(out / SVG_FILE, svg(readings).encode())
    say(f"wrote {out / SVG_FILE}")

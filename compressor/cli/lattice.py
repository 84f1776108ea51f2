"""`compressor inspect --lattice`: the order of each recurrent layer, as facts and as a diagram."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from compressor.cli.output import emit, emit_json, say

if TYPE_CHECKING:
    from compressor.surgery.units.order import Reading
    from compressor.task.guard import GuardedTask

SVG_FILE: Final = "lattice.svg"


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    percentile: float
    order: Literal["closure", "reachability"]
    scope: Literal["layer", "global"]
    out: Path | None
    json: bool


def run(task: "GuardedTask", options: Options) -> None:
    """Trace the task's model, make the orders, show and draw them; an order that says nothing is told as such."""
    from compressor.cli.progress import Terminal
    from compressor.errors import MethodError
    from compressor.surgery.trace.tracer import trace
    from compressor.surgery.units.connections import connections
    from compressor.surgery.units.order import Settings, read

    model = task.model().eval()
    settings = Settings(percentile=options.percentile, order=options.order)
    readings, refused = [], {}
    with Terminal() as progress, progress.bar("ordering the units", None):
        seen = trace(model, task.example(2, min(task.length, max(task.min_length, 3))))
        found = connections(model, seen, None, scope=options.scope, combine=settings.combine)
        for part in found:
            try:
                readings.append(read(part, settings))
            except MethodError as error:
                refused[part.label] = error.message
    if not found:
        raise MethodError("the model has no recurrent layer, so no units that drive each other")
    if options.json:
        emit_json({"layers": [_facts(reading) for reading in readings], "refused": refused})
    else:
        for line in [*(reading.facts for reading in readings), *refused.values()]:
            emit(line)
    if options.out is not None and readings:
        _write(readings, options.out)


def _facts(reading: "Reading") -> dict[str, object]:
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


def _write(readings: "list[Reading]", out: Path) -> None:
    from compressor.files import write_whole, writing
    from compressor.render.lattice import svg

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_whole(out / SVG_FILE, svg(readings).encode())
    say(f"wrote {out / SVG_FILE}")

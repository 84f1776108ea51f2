"""What a step recorded of itself, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render.blocks import Figure
from compressor.render.plots.axes import LEFT, value_axis
from compressor.render.svg import COMPRESSED, Drawing, Scale, around, short

if TYPE_CHECKING:
    from compressor.report import StepReport

_WIDTH, _HEIGHT = 250, 130
"""Several of them stand in a row."""
_MOST_DOTS = 60


def figures(step: StepReport) -> tuple[Figure, ...]:
    """One curve a quantity of the step's history; none of a history without a second row."""
    rows = [row for row in step.history if len(row) > 1]
    if len(rows) < 2:
        return ()
    along = next((name for name in ("epoch", "round", "step") if name in rows[0]), "row")
    places = [row.get(along, place) for place, row in enumerate(rows)]
    quantities = dict.fromkeys(name for row in rows for name in row if name != along)
    return tuple(
        _curve(name, along, [(place, row[name]) for place, row in zip(places, rows, strict=True) if name in row])
        for name in quantities
    )


def _curve(name: str, along: str, known: list[tuple[float, float]]) -> Figure:
    drawing = Drawing(_HEIGHT, _WIDTH)
    scale = value_axis(drawing, *around([value for _, value in known]), bottom=_HEIGHT - 24)
    across = Scale(known[0][0], known[-1][0], LEFT + 6, _WIDTH - 8)
    points = [(across(place), scale(value)) for place, value in known]
    drawing.line(points, COMPRESSED, width=1.5)
    radius = 3.0 if len(points) <= _MOST_DOTS else 1.5
    for (x, y), (place, value) in zip(points, known, strict=True):
        drawing.dot(x, y, radius, COMPRESSED, title=f"{along} {place:g}: {form.significant(value, 4)}")
    drawing.text(across(known[0][0]), _HEIGHT - 6, f"{along} {known[0][0]:g}")
    if len(known) > 1:
        drawing.text(across(known[-1][0]), _HEIGHT - 6, f"{known[-1][0]:g}", anchor="end")
    return Figure(short(name), "", drawing.on_page())

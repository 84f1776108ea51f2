"""What a step recorded of itself, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, ON_A_PAGE, draw, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from compressor.report import StepReport


def figure(step: StepReport) -> Figure | None:
    """One panel a quantity of the step's history."""
    rows = [row for row in step.history if len(row) > 1]
    if len(rows) < 2:
        return None
    along = next((name for name in ("epoch", "round", "step") if name in rows[0]), None)
    places = [row.get(along, place) for place, row in enumerate(rows)] if along else range(len(rows))
    quantities = list(dict.fromkeys(name for row in rows for name in row if name != along))
    title = f"Step {step.index + 1}: {step.method}"

    def fill(canvas: Canvas) -> None:
        panels = canvas.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, quantities, strict=True):
            known: list[tuple[Any, float]] = [
                (place, row[name]) for place, row in zip(places, rows, strict=True) if name in row
            ]
            axes.plot(*zip(*known, strict=True), color=COMPRESSED, marker="o", markersize=3.5)
            axes.set_title(short(name))
            axes.grid(axis="y")
            axes.ticklabel_format(axis="y", useOffset=False)
        panels[-1].set_xlabel(along or "row")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)

    return Figure(
        title,
        f"What the step recorded of itself: {', '.join(quantities)}.",
        draw(0.5 + 1.3 * len(quantities), fill, width_inches=ON_A_PAGE),
    )

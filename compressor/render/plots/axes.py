"""The frame that plots share: a value axis with lines across, and names below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.svg import GRID, MUTED, TEXT, WIDTH, Drawing, Scale, begun, fitting, tick

if TYPE_CHECKING:
    from collections.abc import Sequence

LEFT: Final = 46
"""Where the plane begins: left of it stand the values of the axis."""
TOP: Final = 8
HEIGHT: Final = 190
"""Of a plot; the same for all that stand side by side."""
BOTTOM: Final = 24
"""Room for names below the plane."""


def value_axis(
    drawing: Drawing, low: float, high: float, *, top: float = TOP, bottom: float = HEIGHT - BOTTOM
) -> Scale:
    """Lines across the drawing with their values on the left; what places values from bottom to top."""
    scale = Scale(low, high, bottom, top)
    for value in scale.ticks(4):
        y = scale(value)
        drawing.line([(LEFT, y), (drawing.width, y)], GRID)
        drawing.text(LEFT - 6, y + 4, tick(value, high - low), anchor="end")
    return scale


def names(drawing: Drawing, labels: Sequence[str], places: Sequence[float], y: float = HEIGHT - 6) -> None:
    """Names below the plane, each as long as its room; every second one if there is none."""
    room = (WIDTH - LEFT) / max(1, len(labels))
    every = 1 if room > 34 else -(-34 // max(1, int(room)))
    for index, (label, x) in enumerate(zip(labels, places, strict=True)):
        if index % every == 0:
            half = min(room * every, 2 * (drawing.width - x), 2 * x) if len(labels) > 1 else room
            drawing.text(x, y, begun(label, fitting(half, TEXT)), anchor="middle", fill=MUTED)

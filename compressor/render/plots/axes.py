"""The frame that plots share: a value axis with lines across, and names below."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from compressor.render.svg import GRID, MUTED, TEXT, WIDTH, Drawing, Scale, around, begun, fitting, tick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEFT: Final = 46
"""Where the plane begins: left of it stand the values of the axis."""
TOP: Final = 8
HEIGHT: Final = 190
"""Of a plot; the same for all that stand side by side."""
BOTTOM: Final = 24
"""Room for names below the plane."""
_HALF_A_SIZE: Final = 36
"""Room that a size takes on each side of its place: `0.300 ms`."""
_MOST_TICKS: Final = 4
_FACTORS: Final = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8))


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


def size_axis(drawing: Drawing, logs: Sequence[float], text: Callable[[float], str], *, unit: float = 1) -> Scale:
    """Round values below the plane, none beyond its edge; what places logarithms to the base of 10.

    Args:
        drawing: Where.
        logs: Of a quantity that grows by factors.
        text: Writes the quantity.
        unit: Of which round values are marked.
    """
    across = Scale(*around(logs, 0.08), LEFT + 8, WIDTH - _HALF_A_SIZE)
    for value in _round_values(10**across.low / unit, 10**across.high / unit):
        drawing.text(across(math.log10(value * unit)), drawing.height - 6, text(value * unit), anchor="middle")
    return across


def _round_values(low: float, high: float) -> list[float]:
    """Round values between, the most that have room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = (
        [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]
        for factors in _FACTORS
    )
    return max((ticks for ticks in choices if len(ticks) <= _MOST_TICKS), key=len, default=[])


def names(drawing: Drawing, labels: Sequence[str], places: Sequence[float], y: float = HEIGHT - 6) -> None:
    """Names below the plane, each as long as its room; every second one if there is none."""
    room = (WIDTH - LEFT) / max(1, len(labels))
    every = 1 if room > 34 else -(-34 // max(1, int(room)))
    for index, (label, x) in enumerate(zip(labels, places, strict=True)):
        if index % every == 0:
            half = min(room * every, 2 * (drawing.width - x), 2 * x) if len(labels) > 1 else room
            drawing.text(x, y, begun(label, fitting(half, TEXT)), anchor="middle", fill=MUTED)

"""What each layer takes, original against compressed: one drawing a quantity, all with the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, INK, MUTED, ORIGINAL, WIDTH, Drawing, fitting, short

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Pair = tuple[str, float | None, float | None]

_NAMES: Final = 112
_VALUES: Final = 78
_BAR: Final = 11
_GAP: Final = 4
_ROW: Final = 38


def figure(title: str, described: str, pairs: Sequence[Pair], text: Callable[[float], str]) -> Figure:
    """Two bars a layer, the original's above.

    Args:
        title: Of the figure.
        described: What it shows, in a sentence.
        pairs: Name of a layer, its value in the original and in the compressed model; None if there is none.
        text: Writes a value.
    """
    drawing = Drawing(_ROW * len(pairs) + 4)
    largest = max((value for _, *values in pairs for value in values if value), default=1.0)
    for index, (name, before, after) in enumerate(pairs):
        top = _ROW * index + 4
        drawing.text(0, top + _BAR + 4, short(name, fitting(_NAMES)), fill=INK)
        for place, (side, value, colour) in enumerate(
            (("original", before, ORIGINAL), ("compressed", after, COMPRESSED))
        ):
            if value is None:
                continue
            y, length = top + place * (_BAR + _GAP), (WIDTH - _NAMES - _VALUES) * value / largest
            if value:
                drawing.rect(_NAMES, y, length, _BAR, colour, title=f"{name}, {side}: {text(value)}")
            drawing.text(_NAMES + length + 5, y + _BAR - 1, text(value), size=11, fill=MUTED)
    return Figure(title, described, drawing.on_page())

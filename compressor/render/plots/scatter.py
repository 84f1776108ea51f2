"""Files of several runs as points: the metric against bytes, or against latency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.plots.axes import BOTTOM, HEIGHT, size_axis, value_axis
from compressor.render.svg import COMPRESSED, INK, ORIGINAL, Drawing, around

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.report import RunFile, Runs

_HEIGHT: Final = HEIGHT + 40


def drawing(
    runs: Runs, of: Callable[[RunFile], float | None], text: Callable[[float], str], *, unit: float = 1
) -> str | None:
    """One point a file, with its number in the table; None if fewer than two files have the quantity.

    Args:
        runs: The files.
        of: The quantity along x, which grows by factors; None if a file does not have it.
        text: Writes it.
        unit: Of which round values are marked.
    """
    points = [(index, file, value) for index, file in enumerate(runs.files, 1) if (value := of(file))]
    if len(points) < 2:
        return None
    canvas = Drawing(_HEIGHT)
    up = value_axis(canvas, *around([file.metric for _, file, _ in points]), bottom=_HEIGHT - BOTTOM)
    logs = [math.log10(value) for *_, value in points]
    across = size_axis(canvas, logs, text, unit=unit)
    for (index, file, value), log in zip(points, logs, strict=True):
        x, y, colour = across(log), up(file.metric), COMPRESSED if file.run else ORIGINAL
        title = f"{index}. {file.run or 'original'}, {file.file}: {form.metric(file.metric)}, {text(value)}"
        canvas.dot(x, y, 5, colour, title=title, hollow=not file.unbeaten)
        canvas.text(x + 7, y - 6, str(index), size=11, fill=INK)
    return canvas.on_page()

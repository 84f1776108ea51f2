"""How the timed runs of each file are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render import labels
from compressor.render.blocks import Figure
from compressor.render.plots.axes import HEIGHT
from compressor.render.svg import COMPRESSED, GRID, INK, ORIGINAL, WIDTH, Drawing, Scale, fitting, short, tick

if TYPE_CHECKING:
    from compressor.report import Latency, Report

_BINS: Final = 60
_AXIS: Final = 22
"""Room for the axis below."""
_NAME: Final = 18
"""Room for a name above its histogram."""


def figure(report: Report) -> Figure | None:
    """One histogram a file on a common axis, with p10, p50 and p90 marked."""
    timed = [
        (name, file.latency, ORIGINAL if file.label == "original" else COMPRESSED)
        for name, file in labels.every_file(report)
        if file.latency is not None and file.latency.samples
    ]
    if not timed:
        return None
    # A few timings far out, when something else ran, would squeeze the rest into one bar.
    right = 1.25 * max(latency.p90 for _, latency, _ in timed)
    beyond = sum(value > right for _, latency, _ in timed for value in latency.samples)
    total = sum(len(latency.samples) for _, latency, _ in timed)
    drawing = Drawing(max(HEIGHT, 62 * len(timed) + _AXIS))
    scale = Scale(0, right, 2, WIDTH - 2)
    row = (drawing.height - _AXIS) / len(timed)
    for index, (name, latency, colour) in enumerate(timed):
        _histogram(drawing, name, latency, colour, scale, row * index, row)
    for value in scale.ticks(6):
        drawing.text(scale(value), drawing.height - 4, tick(value), anchor="start" if value == 0 else "middle")
    note = f" {beyond} of {total} timings lie further right." if beyond else ""
    described = f"Timed runs in ms, of each file; the line is the median, the band goes from p10 to p90.{note}"
    return Figure("Latency", described, drawing.on_page())


def _histogram(
    drawing: Drawing, name: str, latency: Latency, colour: str, scale: Scale, top: float, height: float
) -> None:
    ground, room = top + height - 6, height - _NAME - 10
    said = f"p50 {form.milliseconds(latency.p50)}"
    drawing.text(2, top + 13, short(name, fitting(WIDTH) - len(said) - 2), fill=INK)
    drawing.text(WIDTH - 2, top + 13, said, anchor="end", fill=INK)
    spread = f"{name}: p10 {form.milliseconds(latency.p10)}, {said}, p90 {form.milliseconds(latency.p90)}"
    left = scale(latency.p10)
    drawing.rect(left, ground - room, scale(latency.p90) - left, room, colour, title=spread, opacity=0.18)
    step = scale.high / _BINS
    counts = [0] * _BINS
    for value in latency.samples:
        if value < scale.high:
            counts[int(value / step)] += 1
    for index, count in enumerate(counts):
        if count:
            x, tall = scale(index * step), room * count / max(counts)
            between = f"{form.significant(index * step)} to {form.milliseconds((index + 1) * step)}"
            drawing.rect(
                x,
                ground - tall,
                scale(step) - scale(0) - 0.6,
                tall,
                colour,
                title=f"{between}: {form.plural(count, 'run')}",
            )
    drawing.line([(scale(latency.p50), ground - room), (scale(latency.p50), ground)], INK, width=1.2, title=spread)
    drawing.line([(2, ground), (WIDTH - 2, ground)], GRID)

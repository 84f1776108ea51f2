"""What a search tried: loss of the metric against bytes, with the goals as lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Figure
from compressor.render.plots.axes import BOTTOM, LEFT, size_axis, value_axis
from compressor.render.svg import COMPRESSED, INK, MUTED, ORIGINAL, WIDTH, ZERO, Drawing, around

if TYPE_CHECKING:
    from compressor.report import SearchPoint, SearchReport

_HEIGHT: Final = 260
_GOALS_SHOWN: Final = 6.0
"""Losses beyond so many times the goal would press everything else to the ground."""


def figure(report: SearchReport) -> Figure | None:
    """Every point that was tried in full, the frontier, the goals and the chosen point; None if there is none."""
    tried = [point for point in report.points if point.rung == 2 and point.drop is not None and point.bytes]
    if not tried:
        return None
    losses = _losses(report, tried)
    function = "evaluate" if any(report.final_loss(point) for point in tried) else report.function
    largest = _largest(report, losses)
    shown = [point for point in tried if point.number in losses and losses[point.number] <= largest]
    left_out = len(tried) - len(shown)
    more = f" {left_out} with a much larger loss, or none by `{function}`, are left out." if left_out else ""
    return Figure(
        f"Loss of {report.original.metric} by {function} against bytes",
        f"Dots: {len(shown)} recipes tried in full; line: those that no other beats; grey: the original; ring: "
        f"the chosen one; dashes: the goals.{more}",
        _drawn(report, shown, losses),
    )


def _losses(report: SearchReport, tried: list[SearchPoint]) -> dict[int, float]:
    """Point -> its loss by `evaluate`, without those that were not measured by it; by `validate` if none was."""
    final = {point.number: drop.value for point in tried if (drop := report.final_loss(point)) is not None}
    return final or {point.number: point.drop.value for point in tried if point.drop is not None}


def _drawn(report: SearchReport, shown: list[SearchPoint], loss: dict[int, float]) -> str:
    max_bytes, max_drop = _goal(report, "max_bytes"), _goal(report, "max_drop")
    canvas = Drawing(_HEIGHT)
    losses = [0.0, *(loss[point.number] for point in shown), *([] if max_drop is None else [max_drop])]
    sizes = [report.original_bytes, *(point.bytes or 1 for point in shown)]
    up = value_axis(canvas, *around(losses), bottom=_HEIGHT - BOTTOM)
    across = size_axis(canvas, [math.log10(size) for size in sizes], form.decimal_size)

    def x(count: float) -> float:
        return across(math.log10(count))

    if max_drop is not None:
        _dashes(canvas, (LEFT, up(max_drop)), (WIDTH - 4, up(max_drop)), f"max_drop {max_drop:g}")
    if max_bytes and across.low <= math.log10(max_bytes) <= across.high:
        title = f"max_bytes {form.decimal_size(max_bytes)}"
        _dashes(canvas, (x(max_bytes), 4), (x(max_bytes), _HEIGHT - BOTTOM), title)
    front = [point for point in report.frontier if point in shown]
    canvas.line([(x(point.bytes or 1), up(loss[point.number])) for point in front], COMPRESSED, width=2)
    for point in shown:
        colour = COMPRESSED if point.on_frontier else ZERO
        canvas.dot(x(point.bytes or 1), up(loss[point.number]), 4, colour, title=_told(point, loss))
    original = f"original: {form.decimal_size(report.original_bytes)}"
    canvas.dot(x(report.original_bytes), up(0.0), 5, ORIGINAL, title=original)
    if report.chosen in loss:
        best = report.point(report.chosen)
        canvas.dot(x(best.bytes or 1), up(loss[best.number]), 8, INK, title=f"chosen: {_told(best, loss)}", hollow=True)
    return canvas.on_page()


def _dashes(canvas: Drawing, start: tuple[float, float], end: tuple[float, float], title: str) -> None:
    """A dashed line."""
    length = math.dist(start, end)
    count = max(1, int(length / 8))
    for index in range(count):
        places = [index / count, (index + 0.5) / count]
        points = [tuple(a + place * (b - a) for a, b in zip(start, end, strict=True)) for place in places]
        canvas.line([(point[0], point[1]) for point in points], MUTED, title=title)


def _told(point: SearchPoint, loss: dict[int, float]) -> str:
    return f"{point.number}: {form.decimal_size(point.bytes or 0)}, loss {loss[point.number]:z.4f}; {point.verdict}"


def _largest(report: SearchReport, losses: dict[int, float]) -> float:
    goal = _goal(report, "max_drop")
    return math.inf if not goal else max(_GOALS_SHOWN * goal, min(losses.values()))


def _goal(report: SearchReport, name: str) -> float | None:
    """A goal that is a number; None if there is none."""
    value = report.goals.get(name)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e18 else None

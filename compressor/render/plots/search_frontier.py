"""What a search tried: loss of the metric against bytes, with the goals as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, INK, MUTED, ORIGINAL, ZERO, draw, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from compressor.report import SearchPoint, SearchReport


def figure(report: SearchReport) -> Figure | None:
    """Every point that was tried in full, the frontier, the goals and the chosen point; None if there is none."""
    tried = [point for point in report.points if point.rung == 2 and point.drop is not None and point.bytes]
    if not tried:
        return None
    front = report.frontier
    worst = _worst_shown(report, tried)

    def fill(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.set_xscale("log")
        shown = [point for point in tried if _drop(point) <= worst]
        axes.scatter([p.bytes or 0 for p in shown], [_drop(p) for p in shown], s=14, color=ZERO, label="tried in full")
        steps = [point for point in front if _drop(point) <= worst]
        axes.plot(
            [p.bytes or 0 for p in steps],
            [_drop(p) for p in steps],
            color=COMPRESSED,
            marker="o",
            ms=4,
            label="frontier",
        )
        axes.scatter([report.original_bytes], [0.0], marker="s", s=36, color=ORIGINAL, label="original", zorder=3)
        for name, value in (("max_bytes", report.goals.get("max_bytes")), ("max_drop", report.goals.get("max_drop"))):
            if value is None:
                continue
            line = axes.axvline if name == "max_bytes" else axes.axhline
            line(float(value), color=MUTED, linewidth=1, linestyle="--", label=name)
        if report.chosen is not None:
            best = report.point(report.chosen)
            axes.scatter(
                [best.bytes or 0], [_drop(best)], marker="*", s=150, facecolors="none", edgecolors=INK, label="chosen",
                zorder=4,
            )  # fmt: skip
        axes.set_xlabel("bytes")
        axes.set_title(f"loss of {short(report.original.metric)}, by {report.function}")
        axes.grid(axis="y")
        axes.legend(loc="upper right", fontsize=8.5)

    return Figure(
        "Frontier",
        f"Loss of the metric against bytes of the file: {len(tried)} recipes that were tried in full, {len(front)} of "
        "them beaten by no other.",
        draw(3.6, fill),
    )


def _drop(point: SearchPoint) -> float:
    return 0.0 if point.drop is None else point.drop.value


def _worst_shown(report: SearchReport, tried: list[SearchPoint]) -> float:
    """Losses far beyond the goal would press everything else to the ground."""
    goal = report.goals.get("max_drop")
    largest = max(_drop(point) for point in tried)
    return largest if goal is None else max(6.0 * float(goal), min(_drop(point) for point in tried))

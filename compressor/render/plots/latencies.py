"""How the timed runs of each file are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render import labels
from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, INK, ON_A_PAGE, ORIGINAL, draw, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from compressor.report import Latency, Report


_BINS: Final = 48


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

    def fill(canvas: Canvas) -> None:
        rows = canvas.subplots(len(timed), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, latency, colour) in zip(rows, timed, strict=True):
            _histogram(axes, latency, colour, right)
            axes.set_title(f"{short(name)}: p50 {form.milliseconds(latency.p50)}")
        rows[-1].set_xlim(0, right)
        note = f" ({beyond} of {total} timings lie further right)" if beyond else ""
        rows[-1].set_xlabel(f"ms a run{note}")

    return Figure(
        "Latency",
        "How the timed runs of each file are spread; the line is the median, the band goes from p10 to p90.",
        draw(0.6 + 1.15 * len(timed), fill, width_inches=ON_A_PAGE),
    )


def _histogram(axes: Axes, latency: Latency, colour: str, right: float) -> None:
    axes.axvspan(latency.p10, latency.p90, color=colour, alpha=0.18, linewidth=0)
    axes.hist(latency.samples, bins=_BINS, range=(0, right), color=colour)
    axes.axvline(latency.p50, color=INK, linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)

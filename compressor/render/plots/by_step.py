"""The metric and the number of parameters over the steps of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, ON_A_PAGE, ZERO, draw, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from compressor.report import Report, Score


_MOST_UPRIGHT_NAMES: Final = 6


def figure(report: Report) -> Figure | None:
    """Metric above, parameters and non-zeros below, from the original over each step to the exported file."""
    if not report.steps:
        return None
    from matplotlib.ticker import EngFormatter

    names = ["original", *(f"{step.index + 1}.\n{short(step.method, 18)}" for step in report.steps), "exported\nfile"]
    last = report.compressed[0] if report.compressed else report.original
    scores = [report.original.torch_score, *(step.score for step in report.steps), last.score]
    parameters = [report.original.parameters, *(step.parameters for step in report.steps), last.parameters]
    nonzeros = [report.original.nonzeros, *(step.nonzeros for step in report.steps), last.nonzeros]

    def fill(canvas: Canvas) -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True)
        _metric_line(upper, scores)
        upper.set_title(short(report.original.score.metric))
        places = range(len(names))
        lower.bar(places, parameters, width=0.55, color=ZERO, label="zero")
        lower.bar(places, nonzeros, width=0.55, color=COMPRESSED, label="not zero")
        lower.set_title("parameters")
        lower.yaxis.set_major_formatter(EngFormatter())
        lower.set_ylim(0, max(parameters) * 1.05)
        lower.grid(axis="y")
        if parameters != nonzeros:
            lower.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, ncols=2, fontsize=8.5)
        _step_names(lower, names)

    return Figure(
        "Metric and size by step",
        "The metric and the number of parameters, from the original over each step to the exported file.",
        draw(3.9, fill, width_inches=ON_A_PAGE),
    )


def _metric_line(axes: Axes, scores: Sequence[Score | None]) -> None:
    known = [(place, score) for place, score in enumerate(scores) if score is not None]
    axes.plot([place for place, _ in known], [score.value for _, score in known], color=COMPRESSED, marker="o")
    for place, score in known:
        if score.interval is not None:
            axes.vlines(place, score.interval.low, score.interval.high, color=COMPRESSED, alpha=0.45, linewidth=3)
    axes.margins(x=0.08, y=0.15)
    axes.grid(axis="y")
    axes.ticklabel_format(axis="y", useOffset=False)


def _step_names(axes: Axes, names: Sequence[str]) -> None:
    crowded = len(names) > _MOST_UPRIGHT_NAMES
    shown = [name.replace("\n", " ") if crowded else name for name in names]
    axes.set_xticks(
        range(len(names)), shown, rotation=40 if crowded else 0, ha="right" if crowded else "center", parse_math=False
    )

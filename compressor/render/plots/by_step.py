"""The metric and the number of parameters over the steps of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render.blocks import Figure
from compressor.render.plots.axes import HEIGHT, LEFT, names, value_axis
from compressor.render.svg import COMPRESSED, WIDTH, ZERO, Drawing, around, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import Report


def figures(report: Report) -> tuple[Figure, ...]:
    """The metric, and parameters with their zeros, from the original over each step to the exported file."""
    return (_metric(report), _parameters(report)) if report.steps else ()


def _labels(report: Report) -> list[str]:
    """What marks say on hover."""
    return ["original", *(f"step {step.index + 1}, {step.method}" for step in report.steps), "exported file"]


def _below(report: Report) -> list[str]:
    """What stands below them."""
    return ["original", *(step.method for step in report.steps), "file"]


def _places(count: int) -> list[float]:
    room = (WIDTH - LEFT) / count
    return [LEFT + room * (index + 0.5) for index in range(count)]


def _metric(report: Report) -> Figure:
    last = report.compressed[0] if report.compressed else report.original
    scores = [report.original.torch_score, *(step.score for step in report.steps), last.score]
    labels = _labels(report)
    known = [(label, x, score) for label, x, score in zip(labels, _places(len(labels)), scores, strict=True) if score]
    ends = [
        end
        for _, _, score in known
        for end in (score.value, *((score.interval.low, score.interval.high) if score.interval else ()))
    ]
    drawing = Drawing(HEIGHT)
    scale = value_axis(drawing, *around(ends))
    drawing.line([(x, scale(score.value)) for _, x, score in known], COMPRESSED, width=1.5)
    for label, x, score in known:
        if score.interval is not None:
            ends_of_interval = [(x, scale(score.interval.low)), (x, scale(score.interval.high))]
            drawing.line(ends_of_interval, COMPRESSED, width=4, opacity=0.35)
        drawing.dot(x, scale(score.value), 4, COMPRESSED, title=f"{label}: {form.score(score)}")
    names(drawing, _below(report), _places(len(labels)))
    metric = short(report.original.score.metric)
    return Figure(
        f"{metric} by step",
        "In PyTorch after each step, at last on the exported file; the bars are 95 % intervals.",
        drawing.on_page(),
    )


def _parameters(report: Report) -> Figure:
    last = report.compressed[0] if report.compressed else report.original
    counts = [
        (report.original.parameters, report.original.nonzeros),
        *((step.parameters, step.nonzeros) for step in report.steps),
        (last.parameters, last.nonzeros),
    ]
    labels = _labels(report)
    places = _places(len(labels))
    drawing = Drawing(HEIGHT)
    zeros = any(parameters != nonzeros for parameters, nonzeros in counts)
    scale = value_axis(drawing, 0, 1.05 * max(parameters for parameters, _ in counts) or 1)
    _bars(drawing, labels, counts, places, scale(0), [scale(number) for pair in counts for number in pair])
    names(drawing, _below(report), places)
    described = "Amber: parameters that are zero." if zeros else "None of them is set to zero."
    return Figure("Parameters by step", f"From the original to the exported file. {described}", drawing.on_page())


def _bars(
    drawing: Drawing,
    labels: Sequence[str],
    counts: Sequence[tuple[int, int]],
    places: Sequence[float],
    ground: float,
    tops: Sequence[float],
) -> None:
    width = 0.55 * (WIDTH - LEFT) / len(labels)
    for index, (label, (parameters, nonzeros), x) in enumerate(zip(labels, counts, places, strict=True)):
        top, top_nonzero = tops[2 * index : 2 * index + 2]
        title = f"{label}: {form.plural(parameters, 'parameter')}"
        if parameters != nonzeros:
            title += f", {form.count(nonzeros)} of them not zero"
            drawing.rect(x - width / 2, top, width, top_nonzero - top, ZERO, title=title)
        drawing.rect(x - width / 2, top_nonzero, width, ground - top_nonzero, COMPRESSED, title=title)

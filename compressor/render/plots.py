"""Plots of a report as inline SVG that takes its colours from the page, so that it fits light and dark.

Figures are made without pyplot, so no window system and no global list of figures is touched. Same report, same SVG.
"""

from __future__ import annotations

import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

from compressor.render import format as form
from compressor.render import view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compressor.report import Latency, LayerSparsity, Report, Score, StepReport

# Colours that stand for the page's own: each is replaced by a CSS variable in the finished SVG.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
ORIGINAL, COMPRESSED, ZERO = "#010206", "#010207", "#010208"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ORIGINAL: "var(--original)",
    COMPRESSED: "var(--compressed)",
    ZERO: "var(--zero)",
}
_OWN_COLOURS = """
svg { background: #fbfaf7; font-family: system-ui, sans-serif;
  --ink: #1d2326; --muted: #5c676c; --line: #dcdcd4; --original: #7d8b99; --compressed: #0f766e; --zero: #e0b354; }
@media (prefers-color-scheme: dark) { svg { background: #14181a;
  --ink: #e6e8e6; --muted: #9ca8ac; --line: #353d41; --original: #8796a5; --compressed: #3fb8a9; --zero: #b98f3b; } }
"""
_WIDTH_INCHES = 5.2
_MOST_LAYERS = 24
_BINS = 48
_MOST_UPRIGHT_NAMES = 6
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compressor",
    "text.parse_math": False,
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


class Plot:
    """A finished plot: SVG text with a title for the page and a sentence for those who cannot see it."""

    def __init__(self, title: str, description: str, svg: str) -> None:
        """`svg` is ready to be put into an HTML page."""
        self.title = title
        self.description = description
        self.svg = svg


def plots(report: Report) -> list[Plot]:
    """Every plot that this report has data for."""
    return [plot for plot in _all(report) if plot is not None]


def _all(report: Report) -> Iterator[Plot | None]:
    yield _by_step(report)
    yield _latencies(report)
    yield _layers(report)
    for step in report.steps:
        yield _training(step)


def draw(height_inches: float, fill: Callable[[Figure], None]) -> str:
    """The SVG of a figure that `fill` draws on."""
    from io import StringIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names in any script are drawn by the browser's fonts, so matplotlib's own lacking a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches))
        fill(figure)
        FigureCanvasSVG(figure)
        sink = StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(sink.getvalue())


def alone(drawn: str, sentence: str) -> str:
    """What `draw` gave as a file that stands on its own, light or dark as its viewer is; the sentence is its title."""
    head, rest = drawn.split(">", 1)
    head = head.replace(' aria-hidden="true"', ' xmlns="http://www.w3.org/2000/svg" role="img"')
    return f"{head}>\n<title>{escape(sentence)}</title>\n<style>{_OWN_COLOURS}</style>{rest}\n"


def _for_page(svg: str) -> str:
    """The SVG without prologue, metadata, fixed size, names of its own and colours of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {box.group(0) if box else ""} aria-hidden="true"'
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r"<g id=\"[^\"]*\"", "<g", rest)  # `figure_1` and so on, the same in every plot of the page
    rest = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", rest)  # the family is the page's
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, variable)
    return f"{head}>{rest}".strip()


def _by_step(report: Report) -> Plot | None:
    """Metric above, parameters and non-zeros below, from the original over each step to the exported file."""
    if not report.steps:
        return None
    from matplotlib.ticker import EngFormatter

    names = ["original", *(f"{step.index + 1}.\n{step.method}" for step in report.steps), "exported\nfile"]
    last = report.compressed[0] if report.compressed else report.original
    scores = [report.original.torch_score, *(step.score for step in report.steps), last.score]
    parameters = [report.original.parameters, *(step.parameters for step in report.steps), last.parameters]
    nonzeros = [report.original.nonzeros, *(step.nonzeros for step in report.steps), last.nonzeros]

    def fill(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _metric_line(upper, scores)
        upper.set_title(report.original.score.metric)
        places = range(len(names))
        lower.bar(places, parameters, width=0.55, color=ZERO, label="zero")
        lower.bar(places, nonzeros, width=0.55, color=COMPRESSED, label="not zero")
        lower.set_title("parameters")
        lower.yaxis.set_major_formatter(EngFormatter())
        lower.set_ylim(0, max(parameters) * 1.05)
        lower.grid(axis="y")
        lower.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, ncols=2, fontsize=8.5)
        _step_names(lower, names)

    return Plot(
        "Metric and size by step",
        "The metric and the number of parameters, from the original over each step to the exported file.",
        draw(3.9, fill),
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


def _latencies(report: Report) -> Plot | None:
    """One histogram a file on a common axis, with p10, p50 and p90 marked."""
    files = [(name, measurement.latency, ORIGINAL) for name, measurement in view.originals(report)]
    files += [
        (view.label(report, index), measurement.latency, COMPRESSED)
        for index, measurement in enumerate(report.compressed)
    ]
    timed = [(name, latency, colour) for name, latency, colour in files if latency is not None and latency.samples]
    if not timed:
        return None
    # A few timings far out, when something else ran, would squeeze the rest into one bar.
    right = 1.25 * max(latency.p90 for _, latency, _ in timed)
    beyond = sum(value > right for _, latency, _ in timed for value in latency.samples)
    total = sum(len(latency.samples) for _, latency, _ in timed)

    def fill(figure: Figure) -> None:
        rows = figure.subplots(len(timed), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, latency, colour) in zip(rows, timed, strict=True):
            _histogram(axes, latency, colour, right)
            axes.set_title(f"{name}: p50 {form.milliseconds(latency.p50)}")
        rows[-1].set_xlim(0, right)
        note = f" ({beyond} of {total} timings lie further right)" if beyond else ""
        rows[-1].set_xlabel(f"ms a run{note}")

    return Plot(
        "Latency",
        "How the timed runs of each file are spread; the line is the median, the band goes from p10 to p90.",
        draw(0.6 + 1.15 * len(timed), fill),
    )


def _histogram(axes: Axes, latency: Latency, colour: str, right: float) -> None:
    axes.axvspan(latency.p10, latency.p90, color=colour, alpha=0.18, linewidth=0)
    axes.hist(latency.samples, bins=_BINS, range=(0, right), color=colour)
    axes.axvline(latency.p50, color=INK, linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _layers(report: Report) -> Plot | None:
    """For every parameter what became of its elements: kept, set to zero, or removed."""
    if not report.compressed or not report.compressed[0].layers:
        return None
    before = {layer.name: layer for layer in report.original.layers}
    after = sorted(report.compressed[0].layers, key=lambda layer: -_whole(layer, before))
    shown = sorted(after[:_MOST_LAYERS], key=after.index, reverse=True)
    whole = [_whole(layer, before) for layer in shown]
    kept = [layer.nonzeros / size for layer, size in zip(shown, whole, strict=True)]
    zero = [(layer.parameters - layer.nonzeros) / size for layer, size in zip(shown, whole, strict=True)]
    removed = [1 - first - second for first, second in zip(kept, zero, strict=True)]
    left_out = len(after) - len(shown)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(shown))
        starts = [0.0] * len(shown)
        for parts, colour, name in ((kept, COMPRESSED, "kept"), (zero, ZERO, "zero"), (removed, GRID, "removed")):
            axes.barh(places, parts, left=starts, height=0.66, color=colour, label=name)
            starts = [start + part for start, part in zip(starts, parts, strict=True)]
        axes.set_yticks(places, [short(layer.name) for layer in shown], parse_math=False)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, fontsize=8.5)
        axes.set_xlabel(
            "of the original's elements" + (f"; {left_out} smaller parameters are not shown" if left_out else "")
        )

    return Plot(
        "Sparsity by layer",
        "Which part of every parameter was kept, set to zero, or removed; the largest parameters come first.",
        draw(1.0 + 0.24 * len(shown), fill),
    )


def _whole(layer: LayerSparsity, before: dict[str, LayerSparsity]) -> int:
    """Elements that the parameter had in the original, or has now where it is new."""
    known = before.get(layer.name)
    return max(1, layer.parameters, known.parameters if known else 0)


def short(name: str, most: int = 34) -> str:
    """The end of a name that is too long for a plot."""
    return name if len(name) <= most else "…" + name[-most + 1 :]


def _training(step: StepReport) -> Plot | None:
    """One panel a quantity of the step's history."""
    rows = [row for row in step.history if len(row) > 1]
    if len(rows) < 2:
        return None
    along = next((name for name in ("epoch", "round", "step") if name in rows[0]), None)
    places = [row.get(along, place) for place, row in enumerate(rows)] if along else range(len(rows))
    quantities = list(dict.fromkeys(name for row in rows for name in row if name != along))
    title = f"Step {step.index + 1}: {step.method}"

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, quantities, strict=True):
            known: list[tuple[Any, float]] = [
                (place, row[name]) for place, row in zip(places, rows, strict=True) if name in row
            ]
            axes.plot(*zip(*known, strict=True), color=COMPRESSED, marker="o", markersize=3.5)
            axes.set_title(name)
            axes.grid(axis="y")
            axes.ticklabel_format(axis="y", useOffset=False)
        panels[-1].set_xlabel(along or "row")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)

    return Plot(
        title, f"What the step recorded of itself: {', '.join(quantities)}.", draw(0.5 + 1.3 * len(quantities), fill)
    )

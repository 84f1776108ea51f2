"""A sensitivity map as a stand-alone SVG file, light or dark as its viewer is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.svg import COMPRESSED, INK, alone, draw, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compressor.report import LayerSensitivity, Sensitivity

_ROW: Final = 0.62
"""Of the distance of two layers, how much the points of one layer take."""


def svg(sensitivity: Sensitivity) -> str:
    """One row a layer, one point a ratio: how much worse the metric is, with its interval if there is one."""
    shown = [layer for layer in sensitivity.layers if layer.points]
    lines = sum(len(layer.points) for layer in shown)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for row, layer in enumerate(shown):
            _points(axes, layer, sensitivity.ratios, row)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(shown)), [short(layer.label) for layer in shown], parse_math=False)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        worse = "lower" if sensitivity.score.higher_is_better else "higher"
        axes.set_xlabel(f"how much {worse}, that is worse, {sensitivity.score.metric} is", parse_math=False)
        title = f"{sensitivity.task}: each layer pruned alone, nothing retrained"
        whole = f"{sensitivity.score.metric} {sensitivity.score.value:.4g} with all units; percentages are units gone"
        axes.set_title(f"{title}\n{whole}", parse_math=False)

    drawn = draw(1.3 + 0.24 * lines + 0.15 * len(shown), fill)
    return alone(drawn, _sentence(sensitivity))


def _points(axes: Axes, layer: LayerSensitivity, ratios: tuple[float, ...], row: int) -> None:
    """From light (small ratio) to dark (large ratio), one below the other, each with its ratio next to it."""
    for point in layer.points:
        index = ratios.index(point.ratio)
        place = row + _ROW * ((index + 0.5) / len(ratios) - 0.5)
        strength = 0.4 + 0.6 * (index + 1) / len(ratios)
        if point.drop.interval is not None:
            axes.hlines(place, point.drop.interval.low, point.drop.interval.high, color=COMPRESSED, alpha=0.35, lw=3)
        axes.plot([point.drop.value], [place], "o", color=COMPRESSED, alpha=strength, markersize=6)
        right = max(point.drop.value, point.drop.interval.high if point.drop.interval else point.drop.value)
        axes.annotate(
            f"{100 * point.ratio:g} %", (right, place), (7, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.margins(x=0.12)


def _sentence(sensitivity: Sensitivity) -> str:
    rows = [
        f"{layer.label}: " + ", ".join(f"{point.drop.value:.4g} at ratio {point.ratio:g}" for point in layer.points)
        for layer in sensitivity.layers
        if layer.points
    ]
    return f"Drop of {sensitivity.score.metric} with each layer pruned alone. {'; '.join(rows)}."

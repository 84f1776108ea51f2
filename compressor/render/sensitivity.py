"""A sensitivity map as a stand-alone SVG file, light or dark as its viewer is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.svg import ALONE, COMPRESSED, GRID, INK, Drawing, Scale, fitting, short, tick

if TYPE_CHECKING:
    from compressor.report import Drop, LayerSensitivity, Sensitivity

_TOP: Final = 46
_LINE: Final = 16
"""Height of a point's row."""
_GAP: Final = 8
"""Between two layers."""
_BOTTOM: Final = 44


def svg(sensitivity: Sensitivity) -> str:
    """One row a layer, one point a ratio: how much worse the metric is, with its interval if there is one."""
    shown = [layer for layer in sensitivity.layers if layer.points]
    ends = [end for layer in shown for point in layer.points for end in _ends(point.drop)]
    names = min(200.0, max((len(short(layer.label)) for layer in shown), default=0) * 7.0 + 16)
    lines = sum(len(layer.points) for layer in shown)
    drawing = Drawing(_TOP + _LINE * lines + _GAP * len(shown) + _BOTTOM, ALONE)
    drawing.text(8, 18, f"{sensitivity.task}: each layer pruned alone, nothing retrained", fill=INK)
    whole = f"{sensitivity.score.metric} {sensitivity.score.value:.4g} with all units; percentages are units gone"
    drawing.text(8, 34, whole)
    scale = Scale(min([0.0, *ends]), max([0.0, *ends]), names + 6, ALONE - 48)
    _axis(drawing, scale)
    top = float(_TOP)
    for layer in shown:
        height = _LINE * len(layer.points) + _GAP
        drawing.text(names - 8, top + height / 2 + 4, short(layer.label, fitting(names)), anchor="end", fill=INK)
        _points(drawing, layer, sensitivity.ratios, scale, top + _GAP / 2)
        top += height
    worse = "lower" if sensitivity.score.higher_is_better else "higher"
    said = f"how much {worse}, that is worse, {sensitivity.score.metric} is"
    drawing.text(ALONE - 8, drawing.height - 6, said, anchor="end")
    return drawing.alone(_sentence(sensitivity))


def _axis(drawing: Drawing, scale: Scale) -> None:
    ground = drawing.height - _BOTTOM
    for value in scale.ticks():
        drawing.line([(scale(value), _TOP), (scale(value), ground)], INK if value == 0 else GRID)
        drawing.text(scale(value), ground + 15, tick(value, scale.high - scale.low), anchor="middle")


def _points(drawing: Drawing, layer: LayerSensitivity, ratios: tuple[float, ...], scale: Scale, top: float) -> None:
    """From light (small ratio) to dark (large ratio), one below the other, each with its ratio next to it."""
    for line, point in enumerate(layer.points):
        y, strength = top + _LINE * (line + 0.5), 0.4 + 0.6 * (ratios.index(point.ratio) + 1) / len(ratios)
        title = f"{layer.label}, ratio {point.ratio:g}: {point.drop.value:.4g} worse"
        places = [scale(end) for end in _ends(point.drop)]
        if point.drop.interval is not None:
            drawing.line([(min(places), y), (max(places), y)], COMPRESSED, width=3, opacity=0.35, title=title)
        drawing.dot(scale(point.drop.value), y, 4, COMPRESSED, opacity=strength, title=title)
        drawing.text(max(places) + 8, y + 4, f"{100 * point.ratio:g} %", size=11, fill=INK)


def _ends(drop: Drop) -> list[float]:
    return [drop.value, *((drop.interval.low, drop.interval.high) if drop.interval is not None else ())]


def _sentence(sensitivity: Sensitivity) -> str:
    rows = [
        f"{layer.label}: " + ", ".join(f"{point.drop.value:.4g} at ratio {point.ratio:g}" for point in layer.points)
        for layer in sensitivity.layers
        if layer.points
    ]
    return f"Drop of {sensitivity.score.metric} with each layer pruned alone. {'; '.join(rows)}."

"""What became of the elements of every parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, GRID, ON_A_PAGE, ZERO, draw, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from compressor.report import LayerSparsity, Report


_MOST_LAYERS: Final = 24


def figure(report: Report) -> Figure | None:
    """For every parameter what became of its elements: kept, set to zero, or removed; None if all were kept."""
    if not report.compressed:
        return None
    before = {layer.name: layer for layer in report.original.layers}
    layers = sorted(report.compressed[0].layers, key=lambda layer: -_elements(layer, before))
    if all(layer.nonzeros == _elements(layer, before) for layer in layers):
        return None
    shown = layers[:_MOST_LAYERS][::-1]  # the first at the top
    left_out = f"; {len(layers) - len(shown)} smaller parameters are not shown" if len(layers) > len(shown) else ""

    def fill(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _bars(axes, shown, [_elements(layer, before) for layer in shown])
        axes.set_yticks(range(len(shown)), [short(layer.name, 26) for layer in shown], parse_math=False)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        canvas.legend(loc="outside upper left", ncols=3, fontsize=8.5)
        axes.set_xlabel(f"of the original's elements{left_out}")

    return Figure(
        "Sparsity by layer",
        "Which part of every parameter was kept, set to zero, or removed; the largest parameters come first.",
        draw(1.0 + 0.24 * len(shown), fill, width_inches=ON_A_PAGE),
    )


def _bars(axes: Axes, layers: Sequence[LayerSparsity], elements: Sequence[int]) -> None:
    starts = [0.0] * len(layers)
    for name, colour, counts in (
        ("kept", COMPRESSED, [layer.nonzeros for layer in layers]),
        ("zero", ZERO, [layer.parameters - layer.nonzeros for layer in layers]),
        ("removed", GRID, [size - layer.parameters for layer, size in zip(layers, elements, strict=True)]),
    ):
        shares = [count / size for count, size in zip(counts, elements, strict=True)]
        label = name if any(counts) else None  # the legend has what is in the plot
        axes.barh(range(len(layers)), shares, left=starts, height=0.66, color=colour, label=label)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]


def _elements(layer: LayerSparsity, before: dict[str, LayerSparsity]) -> int:
    """Elements that the parameter had in the original, or has now if it is new."""
    known = before.get(layer.name)
    return max(1, layer.parameters, known.parameters if known else 0)

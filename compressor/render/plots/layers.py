"""What became of the elements of every parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.blocks import Figure
from compressor.render.svg import COMPRESSED, GRID, ZERO, draw, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from compressor.report import LayerSparsity, Report


_MOST_LAYERS: Final = 24


def figure(report: Report) -> Figure | None:
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

    def fill(canvas: Canvas) -> None:
        axes = canvas.subplots()
        places = range(len(shown))
        starts = [0.0] * len(shown)
        for parts, colour, name in ((kept, COMPRESSED, "kept"), (zero, ZERO, "zero"), (removed, GRID, "removed")):
            label = name if any(parts) else None  # the legend has what is in the plot
            axes.barh(places, parts, left=starts, height=0.66, color=colour, label=label)
            starts = [start + part for start, part in zip(starts, parts, strict=True)]
        axes.set_yticks(places, [short(layer.name) for layer in shown], parse_math=False)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        canvas.legend(loc="outside upper left", ncols=3, fontsize=8.5)
        axes.set_xlabel(
            "of the original's elements" + (f"; {left_out} smaller parameters are not shown" if left_out else "")
        )

    return Figure(
        "Sparsity by layer",
        "Which part of every parameter was kept, set to zero, or removed; the largest parameters come first.",
        draw(1.0 + 0.24 * len(shown), fill),
    )


def _whole(layer: LayerSparsity, before: dict[str, LayerSparsity]) -> int:
    """Elements that the parameter had in the original, or has now where it is new."""
    known = before.get(layer.name)
    return max(1, layer.parameters, known.parameters if known else 0)

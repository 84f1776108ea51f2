"""A layered graph as a stand-alone SVG file."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Final

from compressor.render.svg import COMPRESSED, INK, MUTED, ZERO, alone, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compressor.nn.graphs.layered import LayeredGraph

_MOST_NAMED: Final = 64
"""Nodes of a graph, at most, that are numbered."""
_SWEEPS: Final = 8


def svg(graph: LayeredGraph, title: str) -> str:
    """Layers from left to right; edges between neighbouring layers straight, those over a layer bent and in amber."""
    widest = max(len(nodes) for nodes in graph.layers)

    def fill(figure: Figure) -> None:
        _diagram(figure.subplots(), graph, title)

    skips = sum(graph.layer[target] - graph.layer[source] > 1 for source, target in graph.edges)
    sentence = (
        f"{title}: {graph.nodes} nodes in {len(graph.layers)} layers, {len(graph.edges)} edges, {skips} over a layer."
    )
    return alone(draw(1.2 + 0.24 * widest, fill), sentence)


def places(graph: LayeredGraph) -> dict[int, tuple[float, float]]:
    """Position of each node: its layer, and in it close to its neighbours."""
    neighbours: dict[int, list[int]] = {}
    for source, target in graph.edges:
        neighbours.setdefault(source, []).append(target)
        neighbours.setdefault(target, []).append(source)
    up = {node: index - (len(nodes) - 1) / 2 for nodes in graph.layers for index, node in enumerate(nodes)}
    for sweep in range(_SWEEPS):
        # Each layer in the order of its neighbours' mean place, forwards and backwards in turn: fewer crossings.
        for nodes in graph.layers[:: -1 if sweep % 2 else 1]:
            ordered = sorted((fmean(up[other] for other in neighbours.get(node, [node])), node) for node in nodes)
            up |= {node: index - (len(nodes) - 1) / 2 for index, (_, node) in enumerate(ordered)}
    return {node: (float(layer), up[node]) for node, layer in enumerate(graph.layer)}


def _diagram(axes: Axes, graph: LayeredGraph, title: str) -> None:
    from matplotlib.patches import FancyArrowPatch

    positions = places(graph)
    for source, target in graph.edges:
        skip = graph.layer[target] - graph.layer[source] > 1
        axes.add_patch(
            FancyArrowPatch(
                positions[source],
                positions[target],
                arrowstyle="-",
                connectionstyle=f"arc3,rad={0.18 if skip else 0}",
                color=ZERO if skip else MUTED,
                linewidth=0.8,
                alpha=0.9 if skip else 0.55,
                shrinkA=0,
                shrinkB=0,
                zorder=1,
            )
        )
    axes.plot(*zip(*positions.values(), strict=True), "o", color=COMPRESSED, markersize=6, zorder=2)
    if graph.nodes <= _MOST_NAMED:
        for node, place in positions.items():
            axes.annotate(f"{node}", place, (4, 4), textcoords="offset points", fontsize=6.5, color=INK, zorder=3)
    lowest = min(y for _, y in positions.values())
    for layer, nodes in enumerate(graph.layers):
        axes.annotate(
            f"layer {layer}\n{len(nodes)}", (layer, lowest - 0.8), ha="center", va="top", fontsize=7, color=INK
        )
    axes.set_title(title, parse_math=False)
    axes.set_xlim(-0.4, len(graph.layers) - 0.6)
    axes.set_ylim(lowest - 2.2, -lowest + 1)
    axes.set_axis_off()

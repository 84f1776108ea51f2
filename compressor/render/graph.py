"""A layered graph as a stand-alone SVG file."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Final

from compressor.render.svg import ALONE, COMPRESSED, INK, MUTED, ZERO, Drawing, Scale

if TYPE_CHECKING:
    from compressor.nn.graphs.layered import LayeredGraph

_MOST_NAMED: Final = 64
"""Nodes of a graph, at most, that are numbered."""
_SWEEPS: Final = 8
_TOP: Final = 28
_BOTTOM: Final = 34
_ROW: Final = 22
"""Distance of two nodes of a layer."""


def svg(graph: LayeredGraph, title: str) -> str:
    """Layers from left to right; edges between neighbouring layers straight, those over a layer bent and in amber."""
    widest = max(len(nodes) for nodes in graph.layers)
    drawing = Drawing(_TOP + _ROW * (widest + 1) + _BOTTOM, ALONE)
    drawing.text(8, 18, title, fill=INK)
    _diagram(drawing, graph)
    skips = sum(graph.layer[target] - graph.layer[source] > 1 for source, target in graph.edges)
    sentence = (
        f"{title}: {graph.nodes} nodes in {len(graph.layers)} layers, {len(graph.edges)} edges, {skips} over a layer."
    )
    return drawing.alone(sentence)


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


def _diagram(drawing: Drawing, graph: LayeredGraph) -> None:
    across = Scale(-0.4, len(graph.layers) - 0.6, 0, drawing.width)
    middle = (_TOP + drawing.height - _BOTTOM) / 2
    positions = {node: (across(x), middle - _ROW * y) for node, (x, y) in places(graph).items()}
    for source, target in graph.edges:
        if graph.layer[target] - graph.layer[source] > 1:
            drawing.arc(positions[source], positions[target], ZERO, bend=0.18, opacity=0.9)
        else:
            drawing.line([positions[source], positions[target]], MUTED, opacity=0.55)
    for node, (x, y) in positions.items():
        drawing.dot(x, y, 4, COMPRESSED, title=f"node {node}")
        if graph.nodes <= _MOST_NAMED:
            drawing.text(x + 5, y - 5, str(node), size=9, fill=INK)
    for layer, nodes in enumerate(graph.layers):
        for line, text in enumerate((f"layer {layer}", str(len(nodes)))):
            drawing.text(across(layer), drawing.height - 20 + 12 * line, text, anchor="middle", size=9, fill=INK)

"""Graphs for property tests, and what follows from their edges by definition."""

from __future__ import annotations

from hypothesis import strategies as st

from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.random_graphs import barabasi_albert, erdos_renyi, watts_strogatz

SKIPPING = LayeredGraph(7, ((0, 2), (1, 2), (0, 3), (2, 4), (3, 4), (0, 5), (4, 5), (1, 6)))
"""Layers (0, 1), (2, 3, 6), (4,), (5,); one skip pair, from layer 0 to layer 3."""


@st.composite
def graphs(draw):
    """A graph of one of the three kinds."""
    seed = draw(st.integers(0, 1 << 40))
    n = draw(st.integers(1, 23))
    kind = draw(st.sampled_from(["G(n, p)", "WS", "BA"]))
    if kind == "WS" and n > 4:  # k = 4, p < 1 and many tries: connected in practice
        return watts_strogatz(n, draw(st.integers(4, n - 1)), draw(st.floats(0, 1)), seed)
    if kind == "BA" and n > 1:
        return barabasi_albert(n, draw(st.integers(1, n - 1)), seed)
    return erdos_renyi(n, draw(st.floats(0, 1)), seed)


def longest_path_to(node, edges):
    """By following all paths backward."""
    before = [source for source, target in edges if target == node]
    return 1 + max(longest_path_to(source, edges) for source in before) if before else 0


def neighbours(graph):
    both = [*graph.edges, *(edge[::-1] for edge in graph.edges)]
    return [{other for one, other in both if one == node} for node in range(graph.nodes)]


def component(graph, node):
    reached, near = {node}, neighbours(graph)
    while more := {other for member in reached for other in near[member]} - reached:
        reached |= more
    return reached

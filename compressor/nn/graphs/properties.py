"""Properties of a layered graph, from which the accuracy of a network laid out on it can be predicted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.nn.graphs.layered import LayeredGraph


def properties(graph: LayeredGraph) -> dict[str, float]:
    """The 23 properties from which the paper predicts accuracy (arXiv 2407.20601).

    `layers`, `nodes`, `edges`, `source_nodes`, `sink_nodes`, `diameter`, `density`, `avg_shortest_path_length`, and
    `_mean`, `_var` and `_std` of `eccentricity`, `degree`, `closeness`, `nodes_betweenness` and `edge_betweenness`:
    networkx's eccentricity and centralities, with the variance and standard deviation of a sample (0 if there are
    fewer than two values).

    From `diameter` on they are of the undirected graph, but density is m / (n (n - 1)). If it is not connected,
    diameter, path length and eccentricity are those of its largest component (of several the one with the smallest
    node), and the centralities those of the whole graph as networkx defines them. `sink_nodes` is the size of the last
    layer, as in the paper's data; a node without successor in an earlier layer does not count.

    Raises:
        UsageError: The graph has fewer than two nodes.
    """
    import networkx as nx  # type: ignore[import-untyped]

    n = graph.nodes
    if n < 2:
        raise UsageError(f"properties of a graph with {n} node: out of range", hint="needed: at least 2 nodes")
    whole = nx.Graph(list(graph.edges))
    whole.add_nodes_from(range(n))
    largest = whole.subgraph(max(nx.connected_components(whole), key=lambda nodes: (len(nodes), -min(nodes))))
    eccentricity = nx.eccentricity(largest)
    facts = {
        "layers": float(len(graph.layers)),
        "nodes": float(n),
        "edges": float(len(graph.edges)),
        "source_nodes": float(len(graph.layers[0])),
        "sink_nodes": float(len(graph.layers[-1])),
        "diameter": float(max(eccentricity.values())),
        "density": len(graph.edges) / (n * (n - 1)),
        "avg_shortest_path_length": float(nx.average_shortest_path_length(largest)),
    }
    per_item: dict[str, dict[Any, float]] = {
        "eccentricity": eccentricity,
        "degree": nx.degree_centrality(whole),
        "closeness": nx.closeness_centrality(whole),
        "nodes_betweenness": nx.betweenness_centrality(whole),
        "edge_betweenness": nx.edge_betweenness_centrality(whole),
    }
    for name, values in per_item.items():
        facts |= _moments(name, list(values.values()))
    return facts


def _moments(name: str, values: list[float]) -> dict[str, float]:
    """Mean, sample variance and sample standard deviation."""
    count = len(values)
    mean = math.fsum(values) / count if count else 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else 0.0
    return {f"{name}_mean": mean, f"{name}_var": variance, f"{name}_std": math.sqrt(variance)}

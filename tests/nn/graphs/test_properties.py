"""Properties are those by definition and as published."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given, settings

from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert
from tests.nn.graphs.drawn import SKIPPING, component, graphs, neighbours


@settings(deadline=None, max_examples=40)
@given(graphs().filter(lambda graph: 2 <= graph.nodes <= 13))
def test_properties_are_those_by_definition(graph):
    assert properties(graph) == pytest.approx(naive_properties(graph), abs=1e-12)


@pytest.mark.parametrize(
    "graph",
    [LayeredGraph(2), LayeredGraph(2, ((0, 1),)), LayeredGraph(5, ((0, 1), (2, 3))), LayeredGraph(3, ((1, 2),))],
    ids=str,
)
def test_properties_of_tiny_and_disconnected_graphs_are_those_by_definition(graph):
    assert properties(graph) == pytest.approx(naive_properties(graph), abs=1e-12)


def test_there_are_23_properties_in_the_order_of_the_paper():
    names = list(properties(SKIPPING))
    assert names[:6] == ["layers", "nodes", "edges", "source_nodes", "sink_nodes", "diameter"]
    items = ["eccentricity", "degree", "closeness", "nodes_betweenness", "edge_betweenness"]
    assert names[6:8] == ["density", "avg_shortest_path_length"]
    assert names[8:] == [f"{item}_{of}" for item in items for of in ("mean", "var", "std")]


def test_sinks_are_the_last_layer_as_in_the_papers_data():
    # Its Barabási-Albert graph number 30 has 11 nodes, 10 edges, 1 source, diameter 3 and 1 "sink": a tree of diameter
    # 3 with one source has more nodes without successor than that.
    assert properties(SKIPPING)["sink_nodes"] == 1  # 6 has no successor either


def test_published_properties_follow_from_nodes_and_edges():
    # n = 27, m = 2: the first graph of the published GRU runs.
    found = properties(barabasi_albert(27, 2, 0))
    assert found["density"] == pytest.approx(0.07122507122507123, abs=1e-15)
    assert found["degree_mean"] == pytest.approx(0.14245014245014245, abs=1e-15)
    assert (found["edges"], found["source_nodes"]) == (50, 2)


def naive_properties(graph):
    n, near = graph.nodes, neighbours(graph)
    distance, paths = naive_paths(n, near)
    members = max((component(graph, node) for node in range(n)), key=len)
    eccentricity = [max(distance[u][v] for v in members) for u in sorted(members)]
    inside = [distance[u][v] for u, v in itertools.combinations(sorted(members), 2)]
    closeness = []
    for u in range(n):
        reach = component(graph, u)
        total = sum(distance[u][v] for v in reach)
        closeness.append((len(reach) - 1) ** 2 / (total * (n - 1)) if total else 0.0)
    found = {
        "layers": len(graph.layers),
        "nodes": n,
        "edges": len(graph.edges),
        "source_nodes": sum(all(target != node for _, target in graph.edges) for node in range(n)),
        "sink_nodes": sum(layer == max(graph.layer) for layer in graph.layer),
        "diameter": max(eccentricity),
        "density": len(graph.edges) / (n * (n - 1)),
        "avg_shortest_path_length": statistics.mean(inside) if inside else 0.0,
    }
    lists = {
        "eccentricity": eccentricity,
        "degree": [len(near[node]) / (n - 1) for node in range(n)],
        "closeness": closeness,
        "nodes_betweenness": [naive_betweenness(distance, paths, node) for node in range(n)],
        "edge_betweenness": [naive_edge_betweenness(distance, paths, edge) for edge in graph.edges],
    }
    for name, values in lists.items():
        found[f"{name}_mean"] = statistics.mean(values) if values else 0.0
        found[f"{name}_var"] = statistics.variance(values) if len(values) > 1 else 0.0
        found[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def naive_paths(n, near):
    """Distances by Floyd and Warshall, and the number of shortest paths, (n, n) each."""
    distance = [[0 if u == v else 1 if v in near[u] else math.inf for v in range(n)] for u in range(n)]
    for w, u, v in itertools.product(range(n), repeat=3):
        distance[u][v] = min(distance[u][v], distance[u][w] + distance[w][v])
    paths = [[float(u == v) for v in range(n)] for u in range(n)]
    for u in range(n):
        for v in sorted((v for v in range(n) if 0 < distance[u][v] < math.inf), key=lambda v: distance[u][v]):
            paths[u][v] = sum(paths[u][w] for w in near[v] if distance[u][w] == distance[u][v] - 1)
    return distance, paths


def naive_betweenness(distance, paths, node):
    """The mean over pairs of other nodes of the share of their shortest paths that pass the node."""
    n = len(distance)
    if n < 3:
        return 0.0
    through = sum(
        paths[s][node] * paths[node][t] / paths[s][t]
        for s, t in itertools.combinations([v for v in range(n) if v != node], 2)
        if distance[s][node] + distance[node][t] == distance[s][t] < math.inf
    )
    return through * 2 / ((n - 1) * (n - 2))


def naive_edge_betweenness(distance, paths, edge):
    """The mean over pairs of nodes of the share of their shortest paths that take the edge."""
    n = len(distance)
    through = sum(
        paths[s][a] * paths[b][t] / paths[s][t]
        for s, t in itertools.combinations(range(n), 2)
        for a, b in (edge, edge[::-1])
        if distance[s][a] + 1 + distance[b][t] == distance[s][t] < math.inf
    )
    return through * 2 / (n * (n - 1))

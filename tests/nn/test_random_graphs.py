"""Random graphs have the published counts, layers are longest paths, and properties are those by definition."""

from __future__ import annotations

import itertools
import json
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import CheckpointError, UsageError
from compressor.nn.random_graphs import LayeredGraph, barabasi_albert, erdos_renyi, properties, watts_strogatz

SIZES = range(10, 51)  # those of the paper
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


@pytest.mark.parametrize("n", SIZES)
def test_barabasi_albert_graphs_have_the_published_numbers_of_edges_and_sources(n):
    m = n // 10
    for seed in range(3):
        graph = barabasi_albert(n, m, seed)
        assert len(graph.edges) == (n - m) * m
        assert graph.layers[0] == tuple(range(m))
        assert len(component(graph, 0)) == n


@pytest.mark.parametrize("n", SIZES)
def test_watts_strogatz_graphs_have_the_published_number_of_edges_and_are_connected(n):
    k = n // 5
    for seed in range(3):
        graph = watts_strogatz(n, k, 1.0, seed)
        assert len(graph.edges) == n * (k // 2)
        assert len(component(graph, 0)) == n


@settings(deadline=None, max_examples=50)
@given(graphs())
def test_every_edge_leads_to_a_higher_number_and_a_higher_layer(graph):
    assert all(0 <= source < target < graph.nodes for source, target in graph.edges)
    assert all(graph.layer[source] < graph.layer[target] for source, target in graph.edges)
    assert sorted(itertools.chain(*graph.layers)) == list(range(graph.nodes))
    assert all(graph.layer[node] == index for index, nodes in enumerate(graph.layers) for node in nodes)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 11), st.floats(0, 1), st.integers(0, 1 << 30))
def test_the_layer_of_a_node_is_the_length_of_the_longest_path_to_it(n, p, seed):
    graph = erdos_renyi(n, p, seed)
    assert list(graph.layer) == [longest_path_to(node, graph.edges) for node in range(n)]


@settings(deadline=None, max_examples=50)
@given(graphs())
def test_blocks_hold_every_edge_once_and_adjacent_pairs_are_complete(graph):
    blocks = graph.blocks()
    found = [
        (graph.layers[source][column], graph.layers[target][row])
        for (source, target), block in blocks.items()
        for row, column in block.nonzero().tolist()
    ]
    assert sorted(found) == list(graph.edges)
    assert graph.adjacent_pairs == tuple(itertools.pairwise(range(len(graph.layers))))
    assert all(blocks[pair].any(1).all() for pair in graph.adjacent_pairs)
    assert sorted(graph.adjacent_pairs + graph.skip_pairs) == sorted(blocks)


def test_layers_pairs_and_blocks_of_a_small_graph():
    assert SKIPPING.layer == (0, 0, 1, 1, 2, 3, 1)
    assert SKIPPING.layers == ((0, 1), (2, 3, 6), (4,), (5,))
    assert SKIPPING.pairs == ((0, 1), (1, 2), (0, 3), (2, 3))
    assert SKIPPING.skip_pairs == ((0, 3),)
    blocks = {pair: block.int().tolist() for pair, block in SKIPPING.blocks().items()}
    expected = {(0, 1): [[1, 1], [1, 0], [0, 1]], (1, 2): [[1, 1, 0]], (0, 3): [[1, 0]], (2, 3): [[1]]}
    assert blocks == expected
    assert all(block.dtype == torch.bool for block in SKIPPING.blocks().values())


def test_an_edgeless_graph_is_one_layer():
    graph = LayeredGraph(3)
    assert (graph.layers, graph.pairs, graph.blocks()) == (((0, 1, 2),), (), {})


def test_undirected_edges_are_oriented_upward_and_counted_once():
    assert LayeredGraph.from_undirected(5, [(3, 1), (1, 3), (4, 0)]) == LayeredGraph(5, ((1, 3), (0, 4)))


def test_a_seed_always_gives_the_same_graph():
    assert erdos_renyi(5, 0.5, 7).edges == ((0, 1), (0, 2), (0, 4), (1, 3), (1, 4), (2, 4), (3, 4))
    assert watts_strogatz(7, 2, 1.0, 7).edges == ((0, 1), (0, 2), (0, 5), (1, 4), (2, 3), (2, 4), (5, 6))
    grown = ((0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (1, 2), (1, 3), (1, 4), (1, 5), (3, 6))
    assert barabasi_albert(7, 2, 7).edges == grown
    assert len({barabasi_albert(23, 3, seed) for seed in range(11)}) == 11


def test_edges_of_g_n_p_come_with_probability_p():
    counts = [len(erdos_renyi(11, 0.3, seed).edges) for seed in range(400)]
    sigma = math.sqrt(55 * 0.3 * 0.7)
    assert statistics.mean(counts) == pytest.approx(55 * 0.3, abs=4 * sigma / math.sqrt(400))
    assert statistics.stdev(counts) == pytest.approx(sigma, rel=0.2)
    assert len(erdos_renyi(11, 1.0, 0).edges) == 55
    assert erdos_renyi(11, 0.0, 0).edges == ()


def test_newcomers_join_nodes_in_proportion_to_their_degree():
    # Of 4 nodes with m = 1, node 2 makes 0 or 1 a hub of degree 2; node 3 joins it with probability 2 / 4.
    joined = [barabasi_albert(4, 1, seed).edges for seed in range(2000)]
    hubs = sum(_end(edges, 3) == _end(edges, 2) for edges in joined)
    assert hubs / 2000 == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))
    assert sum(_end(edges, 2) for edges in joined) / 2000 == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))


def _end(edges, newcomer):
    return next(source for source, target in edges if target == newcomer)


def test_a_ring_that_is_not_rewired_joins_every_node_to_its_nearest():
    ring = {frozenset((u, (u + j) % 11)) for u in range(11) for j in (1, 2)}
    assert {frozenset(edge) for edge in watts_strogatz(11, 5, 0.0, 3).edges} == ring


def test_a_full_ring_has_no_free_place_to_rewire_to():
    assert watts_strogatz(7, 6, 1.0, 0) == erdos_renyi(7, 1.0, 0)


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


@settings(deadline=None, max_examples=50)
@given(graphs())
def test_a_graph_is_rebuilt_from_its_record(graph):
    assert LayeredGraph.from_record(json.loads(json.dumps(graph.record()))) == graph


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "is a list, not an object"),
        ({"nodes": 3}, "`edges`: Field required"),
        ({"nodes": 0, "edges": []}, "it has 0 nodes and 0 edges; 1 to 4096 and up to 131072 are possible"),
        ({"nodes": 1 << 40, "edges": []}, "it has 1099511627776 nodes"),
        ({"nodes": True, "edges": []}, "`nodes`: Input should be a valid integer"),
        ({"nodes": 3, "edges": [[0, 1, 2]]}, "`edges.0`: List should have at most 2 items"),
        ({"nodes": 3, "edges": [[0, 1.5]]}, "`edges.0.1`: Input should be a valid integer"),
        ({"nodes": 3, "edges": [[2, 1]]}, "edge (2, 1) does not go from a lower to a higher one of the nodes 0..2"),
        ({"nodes": 3, "edges": [[1, 1]]}, "edge (1, 1) does not go"),
        ({"nodes": 3, "edges": [[-1, 1]]}, "edge (-1, 1) does not go"),
        ({"nodes": 3, "edges": [[0, 3]]}, "edge (0, 3) does not go"),
        ({"nodes": 3, "edges": [[0, 1], [0, 1]]}, "edge (0, 1) is there twice"),
        ({"nodes": 3, "edges": [], "name": "x"}, "`name`: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(record, message):
    with pytest.raises(CheckpointError) as caught:
        LayeredGraph.from_record(record)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: erdos_renyi(0, 0.5, 0), "G(n=0, p=0.5): out of range"),
        (lambda: erdos_renyi(3, 1.5, 0), "needed: n >= 1 and 0 <= p <= 1"),
        (lambda: erdos_renyi(3, math.nan, 0), "out of range"),
        (lambda: erdos_renyi(3, 0.5, -1), "seed -1: out of range"),
        (lambda: watts_strogatz(9, 1, 1.0, 0), "needed: 2 <= k < n"),
        (lambda: watts_strogatz(5, 5, 1.0, 0), "needed: 2 <= k < n"),
        (lambda: watts_strogatz(7, 2, 1.0, 0, tries=0), "tries >= 1"),
        (lambda: watts_strogatz(47, 2, 1.0, 2, tries=1), "in 1 tries: none was connected"),
        (lambda: barabasi_albert(5, 0, 0), "needed: 1 <= m < n"),
        (lambda: barabasi_albert(5, 5, 0), "needed: 1 <= m < n"),
        (lambda: LayeredGraph(0), "not a layered graph: it has 0 nodes"),
        (lambda: LayeredGraph(3, ((2, 0),)), "edges can be oriented by `from_undirected`"),
        (lambda: LayeredGraph.from_undirected(3, [(1, 1)]), "edge (1, 1) does not go"),
        (lambda: properties(LayeredGraph(1)), "needed: at least 2 nodes"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)

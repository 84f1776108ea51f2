"""Layers are longest paths, and records give equal graphs."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import CheckpointError
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.random_graphs import erdos_renyi
from tests.nn.graphs.drawn import SKIPPING, graphs, longest_path_to


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
    adjacent = list(itertools.pairwise(range(len(graph.layers))))
    assert all(blocks[pair].any(1).all() for pair in adjacent)
    assert sorted([*adjacent, *graph.skip_pairs]) == sorted(blocks)


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

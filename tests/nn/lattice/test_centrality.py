"""Centralities against networkx, on the graph with an edge j -> i where A[i, j]."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.lattice.centrality import betweenness, closeness, degree
from tests.tolerances import SAME_FLOAT64

PAIRS = [
    (degree, nx.degree_centrality),
    (closeness, nx.closeness_centrality),
    (betweenness, nx.betweenness_centrality),
]


def relation(size, density, seed=0):
    return torch.rand(size, size, generator=torch.Generator().manual_seed(seed)) < density


def expected(function, adjacency):
    graph = nx.from_numpy_array(adjacency.T.numpy(), create_using=nx.DiGraph)
    values = function(graph)
    return torch.tensor([values[unit] for unit in range(len(adjacency))], dtype=torch.float64)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 23), density=st.floats(0, 1), seed=st.integers(0, 999))
def test_centralities_of_any_graph_are_those_of_networkx(ours, theirs, size, density, seed):
    adjacency = relation(size, density, seed)
    torch.testing.assert_close(ours(adjacency), expected(theirs, adjacency), **SAME_FLOAT64)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("density", [0.01, 0.03, 0.5])
def test_centralities_of_larger_graphs_are_those_of_networkx(ours, theirs, density):
    adjacency = relation(131, density)
    torch.testing.assert_close(ours(adjacency), expected(theirs, adjacency), **SAME_FLOAT64)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("graph", [nx.path_graph(67), nx.cycle_graph(31), nx.star_graph(12)])
def test_long_and_symmetric_graphs_are_no_exception(ours, theirs, graph):
    adjacency = torch.from_numpy(nx.to_numpy_array(graph)).bool().tril(1)
    torch.testing.assert_close(ours(adjacency), expected(theirs, adjacency), **SAME_FLOAT64)


def test_copies_of_a_graph_have_its_distances_and_paths():
    graph = relation(127, 0.06)
    copies = torch.block_diag(*[graph] * 9)  # 1,143 sources: more than are searched together
    near, between = closeness(copies) * 1142, betweenness(copies) * 1142 * 1141
    torch.testing.assert_close(near, (closeness(graph) * 126).repeat(9), atol=0.0, rtol=1e-12)
    torch.testing.assert_close(between, (betweenness(graph) * 126 * 125).repeat(9), atol=1e-9, rtol=1e-12)


def test_the_only_way_between_two_halves_is_the_most_central():
    adjacency = torch.zeros(7, 7, dtype=torch.bool)
    adjacency[3, :3] = adjacency[4:, 3] = True  # 0, 1, 2 -> 3 -> 4, 5, 6
    assert betweenness(adjacency).tolist() == pytest.approx([0, 0, 0, 9 / 30, 0, 0, 0])
    assert closeness(adjacency)[3].item() == pytest.approx(3 / 6)


@pytest.mark.parametrize("ours", [degree, closeness, betweenness])
def test_centralities_are_the_same_on_an_accelerator(ours, accelerator):
    adjacency = relation(257, 0.02)
    torch.testing.assert_close(ours(adjacency.to(accelerator)).cpu(), ours(adjacency), **SAME_FLOAT64)

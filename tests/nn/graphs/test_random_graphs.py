"""Random graphs have the published counts, and a seed always gives the same graph."""

from __future__ import annotations

import math
import statistics

import pytest

from compressor.errors import UsageError
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert, erdos_renyi, watts_strogatz
from tests.nn.graphs.drawn import component

SIZES = range(10, 51)  # those of the paper


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

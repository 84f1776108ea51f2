import re

from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.random_graphs import barabasi_albert, watts_strogatz
from compressor.render.graph import places, svg


def test_edges_go_from_left_to_right_and_no_two_nodes_share_a_place():
    for graph in (watts_strogatz(31, 6, 1.0, seed=3), barabasi_albert(29, 3, seed=1), LayeredGraph(5)):
        found = places(graph)
        assert all(found[source][0] < found[target][0] for source, target in graph.edges)
        assert len(set(found.values())) == graph.nodes
        assert [x for x, _ in found.values()] == [float(layer) for layer in graph.layer]


def test_nodes_stand_beside_their_neighbours():
    crossed = LayeredGraph(6, ((0, 5), (1, 4), (2, 3)))
    found = places(crossed)
    assert all(found[source][1] == found[target][1] for source, target in crossed.edges)


def test_the_figure_has_a_dot_for_each_node_and_says_what_it_shows():
    graph = watts_strogatz(17, 4, 1.0, seed=0)
    drawn = svg(graph, "a <small> world")
    skips = sum(graph.layer[target] - graph.layer[source] > 1 for source, target in graph.edges)
    assert f"17 nodes in {len(graph.layers)} layers, {len(graph.edges)} edges, {skips} over a layer." in drawn
    assert "<small>" not in drawn
    assert len(re.findall(r"<circle ", drawn)) == 17
    assert drawn == svg(graph, "a <small> world")

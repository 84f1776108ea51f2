"""Random graphs, the layers that a network laid out on one has, and properties of it.

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), whose networks have the structure
of a Barabási–Albert or Watts–Strogatz graph.

All generators draw with nothing but `random.Random(seed).random()`, the only method whose sequence Python promises to
keep, so a seed means the same graph on every machine and in every version.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.errors import UsageError
from compressor.nn.record import LayerRecord, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Edge = tuple[int, int]
"""(source, target), source < target."""
Pair = tuple[int, int]
"""(source layer, target layer), source layer < target layer."""

_MOST_NODES = 1 << 12
_MOST_EDGES = 1 << 17
"""Far above what a network is laid out on; a record from a stranger cannot ask for more."""


class GraphRecord(LayerRecord):
    """What a `LayeredGraph` is built from."""

    nodes: int
    edges: list[Annotated[list[int], Field(min_length=2, max_length=2)]]
    """[source, target] each."""

    @model_validator(mode="after")
    def _edges_are_those_of_a_dag(self) -> GraphRecord:
        problem = _problem(self.nodes, [(source, target) for source, target in self.edges])
        if problem is not None:
            raise ValueError(problem)
        return self


@dataclass(frozen=True)
class LayeredGraph:
    """A directed acyclic graph whose nodes lie in layers: every edge goes to a higher number and a higher layer.

    The layer of a node is 1 + the highest layer of its predecessors, and 0 where it has none: the length of the longest
    path that ends in it (arXiv 2407.20601; `CachedLayeredGraph` of deepstruct).
    """

    nodes: int
    """n, 1..4096; the nodes are the numbers 0..n - 1."""
    edges: tuple[Edge, ...] = ()
    """Each from the lower to the higher number, none twice; kept in ascending order."""

    def __post_init__(self) -> None:
        """Sort the edges; raises `UsageError` where they are not edges of such a graph."""
        problem = _problem(self.nodes, self.edges)
        if problem is not None:
            raise UsageError(f"not a layered graph: {problem}", hint="edges can be oriented by `from_undirected`")
        object.__setattr__(self, "edges", tuple(sorted(self.edges)))

    @classmethod
    def from_undirected(cls, nodes: int, edges: Iterable[tuple[int, int]]) -> LayeredGraph:
        """The graph with every edge oriented from its lower to its higher number; an edge given twice counts once.

        Raises:
            UsageError: An edge is a loop or leaves 0..nodes - 1.
        """
        return cls(nodes, tuple({(min(edge), max(edge)) for edge in edges}))

    @classmethod
    def from_record(cls, record: Any) -> LayeredGraph:
        """The graph that a record describes.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(GraphRecord, record)
        return cls(found.nodes, tuple((source, target) for source, target in found.edges))

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds an equal graph."""
        return {"nodes": self.nodes, "edges": [list(edge) for edge in self.edges]}

    @cached_property
    def layer(self) -> tuple[int, ...]:
        """The layer of every node."""
        layer = [0] * self.nodes
        for source, target in self.edges:  # ascending, so the layer of `source` is final
            layer[target] = max(layer[target], layer[source] + 1)
        return tuple(layer)

    @cached_property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes of every layer, in ascending order."""
        layers: list[list[int]] = [[] for _ in range(max(self.layer) + 1)]
        for node, layer in enumerate(self.layer):
            layers[layer].append(node)
        return tuple(tuple(nodes) for nodes in layers)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The (source layer, target layer) that edges connect, in the order of the target and then of the source."""
        pairs = {(self.layer[source], self.layer[target]) for source, target in self.edges}
        return tuple(sorted(pairs, key=lambda pair: pair[::-1]))

    @property
    def adjacent_pairs(self) -> tuple[Pair, ...]:
        """(0, 1), (1, 2) and so on up to the last layer: every node above layer 0 has a predecessor just below it."""
        return tuple(pair for pair in self.pairs if pair[1] - pair[0] == 1)

    @property
    def skip_pairs(self) -> tuple[Pair, ...]:
        """The pairs between which at least one layer lies."""
        return tuple(pair for pair in self.pairs if pair[1] - pair[0] > 1)

    def blocks(self) -> dict[Pair, Tensor]:
        """For each of `pairs` the mask (target nodes, source nodes), True = edge; nodes in the order of `layers`."""
        place = {node: index for nodes in self.layers for index, node in enumerate(nodes)}
        blocks = {
            (source, target): torch.zeros(len(self.layers[target]), len(self.layers[source]), dtype=torch.bool)
            for source, target in self.pairs
        }
        for source, target in self.edges:
            blocks[self.layer[source], self.layer[target]][place[target], place[source]] = True
        return blocks


def erdos_renyi(n: int, p: float, seed: int) -> LayeredGraph:
    """G(n, p): each of the n (n - 1) / 2 edges is there with probability p, independently of the others.

    Args:
        n: Number of nodes, >= 1.
        p: 0..1.
        seed: >= 0.

    Raises:
        UsageError: An argument is out of range.
    """
    _need(n >= 1 and 0.0 <= p <= 1.0, f"G(n={n}, p={p})", "n >= 1 and 0 <= p <= 1")
    random = _random(seed)
    return LayeredGraph(n, tuple((i, j) for i in range(n) for j in range(i + 1, n) if random.random() < p))


def watts_strogatz(n: int, k: int, p: float, seed: int, tries: int = 100) -> LayeredGraph:
    """A connected Watts–Strogatz graph: a ring, each node joined to its k nearest, edges rewired with probability p.

    It has n * floor(k / 2) edges. The ring's edges (u, u + j) are taken for j = 1.. and within j for u = 0.. in order;
    a rewired one keeps u and gets another end, uniformly from the nodes that u is not joined to (Watts and Strogatz,
    Nature 393, 1998; as networkx does it). The paper takes n = 10..50, k = floor(n / 5), p = 1, tries = 10.

    Args:
        n: Number of nodes.
        k: 2 <= k < n; an odd k counts as k - 1.
        p: 0..1.
        seed: >= 0.
        tries: Graphs that are drawn, >= 1, until one is connected.

    Raises:
        UsageError: An argument is out of range, or none of the graphs was connected.
    """
    what = f"a Watts–Strogatz graph of n={n}, k={k}, p={p} in {tries} tries"
    _need(2 <= k < n and 0.0 <= p <= 1.0 and tries >= 1, what, "2 <= k < n, 0 <= p <= 1 and tries >= 1")
    random = _random(seed)
    for _ in range(tries):
        neighbours = _small_world(n, k, p, random)
        if _is_connected(neighbours):
            return LayeredGraph.from_undirected(n, ((u, v) for u in range(n) for v in neighbours[u]))
    raise UsageError(f"{what}: none was connected", hint="raise `k` or `tries`, or lower `p`")


def barabasi_albert(n: int, m: int, seed: int) -> LayeredGraph:
    """A Barabási–Albert graph: nodes m..n - 1 come one by one and join m earlier ones, those of high degree likelier.

    It starts from m isolated nodes, all of which the first newcomer joins; the graph has (n - m) * m edges, and nodes
    0..m - 1 are its sources. (networkx starts from a star since version 2.6, which leaves one source.) The paper takes
    n = 10..50, m = floor(n / 10).

    Args:
        n: Number of nodes.
        m: Edges of each newcomer, 1 <= m < n.
        seed: >= 0.

    Raises:
        UsageError: An argument is out of range.
    """
    _need(1 <= m < n, f"a Barabási–Albert graph of n={n}, m={m}", "1 <= m < n")
    random = _random(seed)
    edges: list[Edge] = []
    ends: list[int] = []  # every node as often as it has edges
    targets = list(range(m))
    for source in range(m, n):
        edges += [(target, source) for target in targets]
        ends += targets + [source] * m
        targets = _distinct(ends, m, random)
    return LayeredGraph(n, tuple(edges))


def properties(graph: LayeredGraph) -> dict[str, float]:
    """The 23 properties from which the paper predicts accuracy (arXiv 2407.20601).

    `layers`, `nodes`, `edges`, `source_nodes`, `sink_nodes`, `diameter`, `density`, `avg_shortest_path_length`, and
    `_mean`, `_var` and `_std` of `eccentricity`, `degree`, `closeness`, `nodes_betweenness` and `edge_betweenness`:
    networkx's eccentricity and centralities, with the variance and standard deviation of a sample (0 where there are
    fewer than two values).

    From `diameter` on they are of the undirected graph, but density is m / (n (n - 1)). Where it is not connected,
    diameter, path length and eccentricity are those of its largest component (of several the one with the smallest
    node), and the centralities those of the whole graph as networkx defines them. `sink_nodes` is the size of the last
    layer, as in the paper's data; a node without successor in an earlier layer does not count.

    Raises:
        UsageError: The graph has fewer than two nodes.
    """
    import networkx as nx  # type: ignore[import-untyped]

    n = graph.nodes
    _need(n >= 2, f"properties of a graph with {n} node", "at least 2 nodes")
    whole = nx.Graph(list(graph.edges))
    whole.add_nodes_from(range(n))
    largest = whole.subgraph(max(nx.connected_components(whole), key=lambda nodes: (len(nodes), -min(nodes))))
    eccentricity = nx.eccentricity(largest)
    found = {
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
        found |= _moments(name, list(values.values()))
    return found


def _problem(nodes: int, edges: Sequence[Edge]) -> str | None:
    """Why these are not the edges of a layered graph; None where they are."""
    if not 1 <= nodes <= _MOST_NODES or len(edges) > _MOST_EDGES:
        return f"it has {nodes} nodes and {len(edges)} edges; 1 to {_MOST_NODES} and up to {_MOST_EDGES} are possible"
    seen: set[Edge] = set()
    for source, target in edges:
        if not 0 <= source < target < nodes:
            return f"edge ({source}, {target}) does not go from a lower to a higher one of the nodes 0..{nodes - 1}"
        if (source, target) in seen:
            return f"edge ({source}, {target}) is there twice"
        seen.add((source, target))
    return None


def _need(fulfilled: bool, what: str, needed: str) -> None:
    if not fulfilled:
        raise UsageError(f"{what}: out of range", hint=f"needed: {needed}")


def _random(seed: int) -> Random:
    _need(seed >= 0, f"seed {seed}", "0 or more, since Python ignores the sign")
    return Random(seed)


def _one_of(items: list[int], random: Random) -> int:
    return items[int(random.random() * len(items))]


def _distinct(items: list[int], count: int, random: Random) -> list[int]:
    """`count` different ones of `items`, drawn one by one, in the order in which they came."""
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[_one_of(items, random)] = None
    return list(drawn)


def _small_world(n: int, k: int, p: float, random: Random) -> list[set[int]]:
    """The neighbours of every node in one draw of a Watts–Strogatz graph."""
    ring = [(u, (u + j) % n) for j in range(1, k // 2 + 1) for u in range(n)]
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for u, v in ring:
        _join(neighbours, u, v)
    for u, v in ring:
        if random.random() >= p:
            continue
        free = [w for w in range(n) if w != u and w not in neighbours[u]]
        if free:
            neighbours[u].remove(v)
            neighbours[v].remove(u)
            _join(neighbours, u, _one_of(free, random))
    return neighbours


def _join(neighbours: list[set[int]], u: int, v: int) -> None:
    neighbours[u].add(v)
    neighbours[v].add(u)


def _is_connected(neighbours: list[set[int]]) -> bool:
    reached, fresh = {0}, {0}
    while fresh:
        fresh = set().union(*(neighbours[node] for node in fresh)) - reached
        reached |= fresh
    return len(reached) == len(neighbours)


def _moments(name: str, values: list[float]) -> dict[str, float]:
    """Mean, sample variance and sample standard deviation."""
    count = len(values)
    mean = math.fsum(values) / count if count else 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else 0.0
    return {f"{name}_mean": mean, f"{name}_var": variance, f"{name}_std": math.sqrt(variance)}

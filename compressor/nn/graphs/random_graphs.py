"""Random graphs: Erdős–Rényi, Watts–Strogatz and Barabási–Albert.

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), whose networks have the structure
of a Barabási–Albert or Watts–Strogatz graph.

All generators draw with nothing but `random.Random(seed).random()`, the only method whose sequence Python promises to
keep, so a seed means the same graph on every machine and in every version.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.nn.graphs.layered import LayeredGraph

if TYPE_CHECKING:
    from compressor.nn.graphs.layered import Edge


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

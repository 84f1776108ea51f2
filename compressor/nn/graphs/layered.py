"""Directed acyclic graphs whose nodes lie in layers, as networks are laid out on them.

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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
"""Far above what a network is laid out on; a record from an untrusted source cannot ask for more."""


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

    The layer of a node is 1 + the highest layer of its predecessors, and 0 if it has none: the length of the longest
    path that ends in it (arXiv 2407.20601; `CachedLayeredGraph` of deepstruct).
    """

    nodes: int
    """n, 1..4096; the nodes are the numbers 0..n - 1."""
    edges: tuple[Edge, ...] = ()
    """Each from the lower to the higher number, none twice; kept in ascending order."""

    def __post_init__(self) -> None:
        """Sort the edges; raises `UsageError` if they are not edges of such a graph."""
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
        fields = parse(GraphRecord, record)
        return cls(fields.nodes, tuple((source, target) for source, target in fields.edges))

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


def _problem(nodes: int, edges: Sequence[Edge]) -> str | None:
    """Why these are not the edges of a layered graph; None if they are."""
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

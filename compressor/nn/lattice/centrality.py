"""Centralities of the directed graph with an edge j -> i for each A[i, j], equal to those of networkx.

All sources of a block are searched level by level together, a matrix product a level: quick if paths are short, as
in the graphs of recurrent layers; a graph of diameter d takes d products forwards and d backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCES = 1024
"""Searched together: bounds the memory to A in float64 and a few matrices of this many rows."""
_UNREACHED = -1


def degree(adjacency: Tensor) -> Tensor:
    """Edges in and out over n - 1, (n,) float64; a loop counts twice; 1 for a single unit.

    Args:
        adjacency: A (n, n), boolean.
    """
    size = len(adjacency)
    if size == 1:
        return torch.ones(1, dtype=torch.float64, device=adjacency.device)
    edges = adjacency.sum(0, dtype=torch.float64) + adjacency.sum(1, dtype=torch.float64)
    return edges / (size - 1)


def closeness(adjacency: Tensor) -> Tensor:
    r"""How near the units that reach a unit are to it.

    .. math:: c_i = \frac{r_i}{n - 1} \cdot \frac{r_i}{\sum_j d(j, i)}

    over the :math:`r_i` other units j from which i is reached; 0 if there is none (Wasserman and Faust, Social
    Network Analysis, p. 201).

    Args:
        adjacency: A (n, n), boolean.

    Returns:
        (n,), float64, 0..1.
    """
    size = len(adjacency)
    reached = adjacency.new_zeros(size, dtype=torch.float64)
    total = torch.zeros_like(reached)
    for distance, _ in _searches(adjacency.double()):
        reached += (distance > 0).sum(0)
        total += distance.clamp(min=0).sum(0)
    return reached.square() / (total * (size - 1)).clamp(min=1.0)


def betweenness(adjacency: Tensor) -> Tensor:
    r"""The share of the shortest paths between two other units that lead through a unit.

    .. math:: b_v = \frac{1}{(n - 1)(n - 2)} \sum_{s \ne v \ne t} \frac{\sigma_{st}(v)}{\sigma_{st}}

    by Brandes' accumulation (A faster algorithm for betweenness centrality, 2001) over whole levels. Path counts
    are float64 and must stay below 1.8e308.

    Args:
        adjacency: A (n, n), boolean.

    Returns:
        (n,), float64, 0..1; zeros for fewer than three units.
    """
    matrix = adjacency.double()
    total = torch.zeros_like(matrix[0])
    for distance, paths in _searches(matrix):
        dependency = torch.zeros_like(paths)  # (s, n)
        for level in range(int(distance.max()), 1, -1):
            share = torch.where(distance == level, (1 + dependency) / paths, 0.0)
            dependency += torch.where(distance == level - 1, (share @ matrix) * paths, 0.0)
        total += dependency.sum(0)
    return total / max((len(matrix) - 1) * (len(matrix) - 2), 1)


def _searches(matrix: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Breadth-first searches from every unit, a block of sources at a time.

    Args:
        matrix: A (n, n), float64.

    Yields:
        For s sources: the distance (s, n) of every unit, -1 if it is not reached, and the number (s, n) of shortest
        paths to it, float64.
    """
    for sources in torch.arange(len(matrix), device=matrix.device).split(_SOURCES):
        paths = matrix.new_zeros(len(sources), len(matrix)).scatter_(1, sources[:, None], 1.0)
        distance = torch.where(paths > 0, 0, _UNREACHED)
        level, frontier = 0, paths
        while bool((distance == _UNREACHED).any()):
            frontier = torch.where(distance == _UNREACHED, frontier @ matrix.T, 0.0)
            if not bool(frontier.any()):
                break
            level += 1
            distance.masked_fill_(frontier > 0, level)
            paths = paths + frontier
        yield distance, paths

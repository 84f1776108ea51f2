"""Clusters of hidden states: k-means with careful seeding (Arthur and Vassilvitskii, 2007)."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 25
_CHUNK = 1 << 22


def clusters(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres (K, D) of points (N, D), K at most `count` and at most the number of distinct points."""
    centres = _seeds(points, count, generator)
    before = torch.full((len(points),), -1)
    for _ in range(_ROUNDS):
        labels = nearest(points, centres)
        if labels.equal(before):
            break
        before = labels
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        sizes = torch.bincount(labels, minlength=len(centres))
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
    return centres


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """For each point (N, D) the number of the nearest centre (N,)."""
    size = max(1, _CHUNK // max(1, len(centres)))
    return torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(size)])


def _seeds(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The first at random, each next one with a probability that grows with the squared distance to the nearest."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distances = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < count and bool((distances > 0).any()):
        chosen.append(int(torch.multinomial(distances.double().clamp(min=0), 1, generator=generator)))
        distances = torch.minimum(distances, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen]

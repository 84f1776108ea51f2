"""Which rank each matrix gets if all of them together may have so many parameters."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Candidate:
    """A matrix, or matrices that are cut together, that may be factored."""

    dense: int
    """Parameters as it is."""
    per_rank: int
    """Parameters of each rank, so r * per_rank when factored."""
    losses: Sequence[float]
    """Part of the energy that is lost at rank 0, 1, ...; falling."""
    most: int
    """The largest rank that makes sense, at least 1 and r * per_rank < dense."""


def allocate_ranks(candidates: Mapping[str, Candidate], parameters: int) -> dict[str, int | None]:
    """Ranks with which all matrices together have at most this many parameters, None = left as it is.

    Greedy by the energy lost for each parameter saved, along the lower convex hull of every matrix' points (parameters,
    energy lost), of which "as it is" is one: from there a matrix goes to the rank at which a saved parameter costs
    least, and then down from corner to corner. What the last step saved too much is given back rank by rank, to where
    it brings most for a parameter.

    Raises:
        UsageError: Not even rank 1 everywhere is that small.
    """
    least = sum(candidate.per_rank for candidate in candidates.values())
    if least > parameters:
        raise UsageError(
            f"{parameters} parameters are fewer than the {least} of rank 1 everywhere", hint="raise the budget"
        )
    ranks: dict[str, int | None] = dict.fromkeys(candidates)
    total = sum(candidate.dense for candidate in candidates.values())
    waiting = [
        (price, index, name, goal)
        for index, (name, candidate) in enumerate(candidates.items())
        for price, goal in _descent(candidate)
    ]
    heapq.heapify(waiting)
    while total > parameters:
        _, _, name, goal = heapq.heappop(waiting)
        candidate, now = candidates[name], ranks[name]
        total -= (candidate.dense if now is None else now * candidate.per_rank) - goal * candidate.per_rank
        ranks[name] = goal
    _give_back(candidates, ranks, parameters - total)
    return ranks


def _descent(candidate: Candidate) -> list[tuple[float, int]]:
    """Corners of the hull from dense to rank 1: (energy lost for each parameter saved on the way to it, rank).

    The prices rise, since the hull is convex: so a heap of all of them gives each matrix' corners in this order.
    """
    points = [(candidate.dense, 0.0, 0)]
    points += [(rank * candidate.per_rank, candidate.losses[rank], rank) for rank in range(candidate.most, 0, -1)]
    hull: list[tuple[int, float, int]] = []
    for point in points:
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(_price(before, after), after[2]) for before, after in itertools.pairwise(hull)]


def _price(before: tuple[int, float, int], after: tuple[int, float, int]) -> float:
    return (after[1] - before[1]) / (before[0] - after[0])


def _give_back(candidates: Mapping[str, Candidate], ranks: dict[str, int | None], spare: int) -> None:
    """Raise ranks while that fits, in place."""
    while True:
        gains = [
            ((candidate.losses[rank] - candidate.losses[rank + 1]) / candidate.per_rank, name)
            for name, candidate in candidates.items()
            if (rank := ranks[name]) is not None and rank < candidate.most and candidate.per_rank <= spare
        ]
        if not gains:
            return
        best = max(gain for gain, _ in gains)
        name = next(name for gain, name in gains if gain == best)
        ranks[name] = (ranks[name] or 0) + 1
        spare -= candidates[name].per_rank

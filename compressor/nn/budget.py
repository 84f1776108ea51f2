"""One point of every item within a budget: bits of matrices, ranks of factors, or units of layers."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Point:
    """What an item may become."""

    cost: int
    """Of the budget: bytes, or parameters."""
    loss: float
    """Losses of different items add up."""


def allocate(items: Mapping[str, Sequence[Point]], budget: int) -> dict[str, int]:
    r"""The place of a point for each item: small :math:`\sum l_i` with :math:`\sum c_i \le` the budget.

    Greedy by the loss for each unit of cost that is saved, along the lower convex hull of every item's points (what a
    Lagrange multiplier would choose; exact for the budgets at which a step of it ends). What the last step saved too
    much is given back, point by point, to where it takes away most loss for its cost. Equal prices go by the order of
    items, so the same numbers give the same result.

    Args:
        items: Name -> points of falling cost; more loss may come with less cost.
        budget: Of all together.

    Raises:
        UsageError: The cheapest points together cost more.
    """
    least = sum(min(point.cost for point in points) for points in items.values())
    if least > budget:
        raise UsageError(f"a budget of {budget} is less than the smallest choice, {least}", hint="raise the budget")
    chosen = dict.fromkeys(items, 0)
    total = sum(points[0].cost for points in items.values())
    waiting = [
        (price, index, name, goal)
        for index, (name, points) in enumerate(items.items())
        for price, goal in _descent(points)
    ]
    heapq.heapify(waiting)
    while total > budget:
        _, _, name, goal = heapq.heappop(waiting)
        total -= items[name][chosen[name]].cost - items[name][goal].cost
        chosen[name] = goal
    _give_back(items, chosen, budget - total)
    return chosen


def _descent(points: Sequence[Point]) -> list[tuple[float, int]]:
    """Corners of the hull from the first point on: (loss for each unit of cost saved on the way to it, its place).

    The prices rise, since the hull is convex: so a heap of all of them gives each item's corners in this order.
    """
    hull: list[int] = [0]
    for place in range(1, len(points)):
        if points[place].cost >= points[hull[-1]].cost:
            continue
        while len(hull) > 1 and _price(points, hull[-2], hull[-1]) >= _price(points, hull[-1], place):
            hull.pop()
        hull.append(place)
    return [(_price(points, before, after), after) for before, after in itertools.pairwise(hull)]


def _price(points: Sequence[Point], before: int, after: int) -> float:
    return (points[after].loss - points[before].loss) / (points[before].cost - points[after].cost)


def _give_back(items: Mapping[str, Sequence[Point]], chosen: dict[str, int], spare: int) -> None:
    """Take the next dearer point of an item while that fits, in place."""
    while True:
        gains = []
        for name, place in chosen.items():
            now, dearer = items[name][place], items[name][place - 1] if place else None
            if dearer is not None and now.cost < dearer.cost <= now.cost + spare and dearer.loss < now.loss:
                gains.append(((now.loss - dearer.loss) / (dearer.cost - now.cost), name))
        if not gains:
            return
        best = max(gain for gain, _ in gains)
        name = next(name for gain, name in gains if gain == best)
        spare -= items[name][chosen[name] - 1].cost - items[name][chosen[name]].cost
        chosen[name] -= 1

"""The points that are tried first, before a sampler knows anything: how much can go is found by bisection.

Models differ in that by a factor of ten, and a point that removes far too much costs as much time as one that is right.
So the first amount is a half; then the half of what is left to go on with, or half as much, by what the last one has
lost after a short training. The amount that was found is then tried in the other ways of storing and training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.studies.search.hypervolume import most_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung, Space

_HALVINGS: Final = 4
"""Amounts of the bisection: what can go is known to a sixteenth of all then."""

_LEFT: Final = 0.5
"""Part of the loss after a short training that is taken to stay after the whole one."""


def opening(space: Space, points: Sequence[Trail], found: Sequence[Estimate]) -> tuple[Point, Rung] | None:
    """The next of the first points and its rung; None if all were tried, or it waits for another worker's result.

    Args:
        space: Of all points.
        points: Those of the study.
        found: Their estimates.
    """
    tried = [trail.point for trail in points]
    for point in space.with_nothing_removed():
        if point not in tried:
            return point, space.first_rung(point)
    known = {estimate.number: estimate for estimate in found}
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        point = space.removing((low + high) / 2)
        if not space.steps(point, 0):
            break
        if point not in tried:
            return point, 1 if space.trains(point) else 0
        trail = next(trail for trail in points if trail.point == point)
        if trail.number not in known:
            return None
        if _leaves_room(trail, known[trail.number], space):
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    enough = high if space.goals.max_drop is None or not low else low
    left = [point for point in space.removing_otherwise(enough) if point not in tried]
    return (left[0], space.first_rung(left[0])) if left else None


def _leaves_room(trail: Trail, estimate: Estimate, space: Space) -> bool:
    """Whether more may go: the loss still counts; without a goal for it, whether the other goals are not met yet.

    It is the first result of the point that decides, so that what is learned later does not lead another way.
    """
    if estimate.failed:
        return False
    if space.goals.max_drop is None:
        return not estimate.meets(space.goals)
    first = trail.records[0]
    assert first.outcome is not None
    assert first.outcome.drop is not None
    left = _LEFT if first.rung == 1 else 1.0
    return left * first.outcome.drop.value <= (most_loss(space.goals.max_drop) or 0.0)

"""What is done next: a point goes on to the next rung, or a new one is drawn.

Asynchronous successive halving (Li et al., arXiv 1810.05934): as soon as a rung has three times as many results as
went on from it, its best goes on. No worker waits for another, and what is next follows from the records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from compressor.studies.search.neighbours import most_promising

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung, Space

ETA: Final = 3
"""One of so many goes on."""


@dataclass(frozen=True)
class Promotion:
    """A point goes on to a rung."""

    trail: Trail
    rung: Literal[1, 2]


def promotion(points: Sequence[Trail], found: Sequence[Estimate], space: Space, original: float) -> Promotion | None:
    """The point that goes on now; None if a new one is to be drawn.

    A point that has nothing to retrain goes on from the first rung to the last.

    Args:
        points: The points of the study.
        found: Their estimates.
        space: Its goals decide which is best.
        original: Bytes of the original's file.
    """
    trains = {trail.number: space.trains(trail.point) for trail in points}
    known = {estimate.number: estimate for estimate in found}
    ways: tuple[tuple[Rung, Literal[1, 2], bool], ...] = ((1, 2, True), (0, 1, True), (0, 2, False))
    for before, after, training in ways:
        own = [trail for trail in points if trains[trail.number] == training]
        done = [trail for trail in own if trail.outcome(before) is not None]
        gone = [trail for trail in done if after in trail.begun]
        waiting = [trail for trail in done if after not in trail.begun and not known[trail.number].failed]
        if len(gone) >= len(done) // ETA or not waiting:
            continue
        best = _best([known[trail.number] for trail in waiting], found, space, original, turn=len(gone))
        return Promotion(next(trail for trail in waiting if trail.number == best.number), after)
    return None


def _best(
    waiting: Sequence[Estimate], found: Sequence[Estimate], space: Space, original: float, *, turn: int
) -> Estimate:
    """The best by the goals, and every other time the one that is expected to add most to the frontier."""
    if turn % 2 == 0:
        return min(waiting, key=lambda estimate: rank(estimate.hopeful(), space.goals))
    return most_promising(waiting, found, space, original)


def rank(estimate: Estimate, goals: Goals) -> tuple[float, float, int]:
    """Sorts the best first: those that meet the goals by what is minimised, the others by how far they miss them."""
    if estimate.failed:
        return (2.0, 0.0, estimate.number)
    if estimate.meets(goals):
        return (0.0, estimate.objective(goals), estimate.number)
    return (1.0, sum(max(0.0, missed) for missed in estimate.violations(goals).values()), estimate.number)

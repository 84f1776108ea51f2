"""What is done next: a point goes on to the next rung, or a new one is drawn.

Asynchronous successive halving (Li et al., arXiv 1810.05934): as soon as a rung has three times as many results as
went on from it, its best goes on. No worker waits for another, and what is next follows from the records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from compressor.studies.search.estimates import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung

ETA: Final = 3
"""One of so many goes on."""


@dataclass(frozen=True)
class Promotion:
    """A point goes on to a rung."""

    trail: Trail
    rung: Literal[1, 2]


def promotion(
    points: Sequence[Trail], found: Sequence[Estimate], goals: Goals, *, trains: bool, eagerly: bool = False
) -> Promotion | None:
    """The point that goes on now; None if a new one is to be drawn.

    Args:
        points: The points of the study.
        found: Their estimates.
        goals: Decide which is best.
        trains: Whether there is a rung between the first and the last.
        eagerly: At the end: go on with the best though a rung has few results.
    """
    ways: list[tuple[Rung, Literal[1, 2]]] = [(1, 2), (0, 1)] if trains else [(0, 2)]
    known = {estimate.number: estimate for estimate in found}
    for before, after in ways:
        done = [trail for trail in points if trail.outcome(before) is not None]
        gone = [trail for trail in done if after in trail.begun]
        allowed = len(done) if eagerly else len(done) // ETA
        waiting = [trail for trail in done if after not in trail.begun and not known[trail.number].failed]
        if len(gone) >= allowed or not waiting:
            continue
        best = _best([known[trail.number] for trail in waiting], goals, turn=len(gone))
        return Promotion(next(trail for trail in waiting if trail.number == best.number), after)
    return None


def _best(waiting: Sequence[Estimate], goals: Goals, turn: int) -> Estimate:
    """The best by the goals, and every third time the loneliest of the frontier."""
    if turn % ETA != ETA - 1:
        return min(waiting, key=lambda estimate: rank(estimate.hopeful(), goals))
    front = layers(waiting, goals)[0]
    return max(front, key=lambda estimate: (_gap(estimate, front, goals), -estimate.number))


def rank(estimate: Estimate, goals: Goals) -> tuple[float, float, int]:
    """Sorts the best first: those that meet the goals by what is minimised, the others by how far they miss them."""
    if estimate.failed:
        return (2.0, 0.0, estimate.number)
    if estimate.meets(goals):
        return (0.0, estimate.objective(goals), estimate.number)
    return (1.0, sum(max(0.0, missed) for missed in estimate.violations(goals).values()), estimate.number)


def _gap(estimate: Estimate, front: Sequence[Estimate], goals: Goals) -> float:
    """Distance to the next in each objective, in parts of its range (crowding distance; Deb et al., 2002)."""
    total = 0.0
    for index in range(len(estimate.values(goals))):
        values = sorted(other.values(goals)[index] for other in front)
        span = values[-1] - values[0]
        place = values.index(estimate.values(goals)[index])
        if span <= 0.0:
            continue
        low, high = values[max(place - 1, 0)], values[min(place + 1, len(values) - 1)]
        total += (high - low) / span
    return total

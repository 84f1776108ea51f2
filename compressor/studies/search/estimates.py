"""What each point would give in full, from the highest rung that it has reached, and which points are best.

Retraining takes back a part of what a removal costs. How much, is learned from the points that went on: the final drop
is taken as a x (drop at rung r), with a by least squares through the origin and a prior, so that few points already
give a usable factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from compressor.studies.search.goal_kinds import KINDS, asked_for
from compressor.studies.search.smoothing import Smoothing
from compressor.studies.search.study_facts import damaged_study

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.report import GoalName
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.prediction import Graphs
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung

_PRIOR: Final[dict[Rung, float]] = {0: 0.3, 1: 0.7, 2: 1.0}
"""Factor from the drop at a rung to the final one, before anything was seen."""
_PRIOR_WEIGHT: Final = 2.0
"""As many points does the prior count for."""
MARGIN: Final = 1e-9
"""By which a goal may be missed, relative to it: the last digits of a number."""


@dataclass(frozen=True)
class Estimate:
    """What a point gives, or is taken to give."""

    number: int
    rung: Rung
    drop: float
    bytes: float
    latency: float
    """In ms; 0 if it does not count."""
    failed: bool = False
    flash: float = 0.0
    """Bytes on a board; 0 without one."""
    ram: float = 0.0
    error: float = 0.0
    """Standard error of the drop that is likely."""
    likely: float | None = None
    """The drop with a part of its noise taken out; None: the drop itself."""

    def smoothed(self) -> Estimate:
        """The same with the drop that is likely, from which the search learns."""
        return self if self.likely is None else replace(self, drop=self.likely)

    def hopeful(self) -> Estimate:
        """The same with a standard error less, so that a small set of validation data does not turn good points away.

        It decides whether the point goes on; what was tried in full is what was measured.
        """
        return self if self.rung == 2 or self.likely is None else replace(self, drop=self.likely - self.error)

    def values(self, goals: Goals) -> tuple[float, ...]:
        """The objectives, all to be as small as possible: drop, bytes, and latency if that counts."""
        return (self.drop, self.bytes, *((self.latency,) if goals.times_files else ()))

    def violations(self, goals: Goals) -> dict[GoalName, float]:
        """By how much each goal is missed, relative to it; 0 or less if it is met."""
        return {
            kind.name: (kind.reached(self) - wanted) / wanted if wanted else kind.reached(self)
            for kind, wanted in asked_for(goals)
        }

    def meets(self, goals: Goals) -> bool:
        """Whether all goals are met."""
        return not self.failed and all(missed <= MARGIN for missed in self.violations(goals).values())

    def objective(self, goals: Goals) -> float:
        """What is minimised among those that meet the goals."""
        return next(kind.reached(self) for kind in KINDS if kind.name == goals.objective)


def estimates(
    points: Sequence[Trail], goals: Goals, graphs: Graphs, trains: Callable[[Point], bool] = lambda _: True
) -> list[Estimate]:
    """One for each point that has a result, in the order of the points.

    Args:
        points: Of the study.
        goals: Say whether latency counts.
        graphs: What files hold beside weights.
        trains: Whether a point is retrained: what it loses otherwise, no training gives back.
    """
    trained = {trail.number: trail for trail in points if trains(trail.point)}
    factors = {rung: factor(list(trained.values()), rung) for rung in _PRIOR}
    smoothing = Smoothing.of([record.outcome for trail in points for record in trail.records if record.outcome])
    found = []
    for trail in points:
        outcome, rung = trail.last, trail.rung
        if outcome is None or rung is None:
            continue
        if outcome.failed:
            found.append(Estimate(trail.number, rung, math.inf, math.inf, math.inf, failed=True))
            continue
        assert outcome.drop is not None
        size = outcome.bytes
        if size is None:
            if outcome.weight_bytes is None:
                raise damaged_study(f"the size of point {trail.number}")
            size = outcome.weight_bytes + graphs.bytes(trail.precision)
        latency = 0.0
        if goals.times_files:
            latency = outcome.latency_ms or graphs.latency(outcome.layers_ms or 0.0, trail.precision)
        flash, ram = (0.0, 0.0) if graphs.board is None else graphs.board.taken(outcome, float(size))
        given, likely = factors[rung] if trail.number in trained else 1.0, smoothing.likely(outcome)
        found.append(
            Estimate(
                trail.number,
                rung,
                given * outcome.drop.value,
                float(size),
                latency,
                flash=flash,
                ram=ram,
                error=given * likely.error,
                likely=given * likely.value,
            )
        )
    return found


def factor(points: Sequence[Trail], rung: Rung) -> float:
    """From a drop at a rung to the final one."""
    if rung == 2:
        return 1.0
    pairs = []
    for trail in points:
        first, last = trail.outcome(rung), trail.outcome(2)
        if first is not None and last is not None and first.drop is not None and last.drop is not None:
            pairs.append((first.drop.value, last.drop.value))
    scale = sum(first * first for first, _ in pairs) / len(pairs) if pairs else 1.0
    weight = _PRIOR_WEIGHT * scale
    above = sum(first * last for first, last in pairs) + weight * _PRIOR[rung]
    below = sum(first * first for first, _ in pairs) + weight
    return min(1.0, max(0.05, above / below)) if below else _PRIOR[rung]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def frontier(found: Sequence[Estimate], goals: Goals) -> list[Estimate]:
    """What no other beats in all objectives, the smallest file first; of equals the first."""
    kept: list[Estimate] = []
    for estimate in found:
        own = estimate.values(goals)
        if estimate.failed or any(
            dominates(other.values(goals), own) or (other.values(goals) == own and other.number < estimate.number)
            for other in found
            if other is not estimate and not other.failed
        ):
            continue
        kept.append(estimate)
    return sorted(kept, key=lambda estimate: (estimate.bytes, estimate.drop))

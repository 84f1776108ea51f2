"""What each point would give in full, from the highest rung that it has reached, and which points are best.

Retraining takes back a part of what a removal costs. How much, is learned from the points that went on: the final drop
is taken as a x (drop at rung r), with a by least squares through the origin and a prior, so that few points already
give a usable factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from compressor.studies.search.study_facts import damaged_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.goals import Goals
    from compressor.studies.search.prediction import Graphs
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung

_PRIOR: Final[dict[Rung, float]] = {0: 0.3, 1: 0.7, 2: 1.0}
"""Factor from the drop at a rung to the final one, before anything was seen."""
_PRIOR_WEIGHT: Final = 2.0
"""As many points does the prior count for."""
_MARGIN: Final = 1e-9


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
    hoped: float | None = None
    """The drop that decides whether the point goes on: halfway to the lower end of its interval, so that a small set of
    validation data does not turn good points away. None: the drop itself."""

    def hopeful(self) -> Estimate:
        """The same with the drop that is hoped for."""
        return self if self.hoped is None else replace(self, drop=self.hoped)

    def values(self, goals: Goals) -> tuple[float, ...]:
        """The objectives, all to be as small as possible: drop, bytes, and latency if that counts."""
        return (self.drop, self.bytes, *((self.latency,) if goals.times_files else ()))

    def violations(self, goals: Goals) -> dict[str, float]:
        """By how much each goal is missed, relative to it; 0 or less if it is met."""
        against = {
            "drop": (self.drop, goals.max_drop),
            "bytes": (self.bytes, goals.max_bytes),
            "latency": (self.latency, goals.max_latency),
            "flash": (self.flash, goals.max_flash),
            "ram": (self.ram, goals.max_ram),
        }
        return {
            name: (value - limit) / max(abs(limit), _MARGIN) if limit else value
            for name, (value, limit) in against.items()
            if limit is not None
        }

    def meets(self, goals: Goals) -> bool:
        """Whether all goals are met."""
        return not self.failed and all(missed <= _MARGIN for missed in self.violations(goals).values())

    def objective(self, goals: Goals) -> float:
        """What is minimised among those that meet the goals."""
        return {"drop": self.drop, "bytes": self.bytes, "latency": self.latency}[goals.objective]


def estimates(points: Sequence[Trail], goals: Goals, graphs: Graphs) -> list[Estimate]:
    """One for each point that has a result, in the order of the points."""
    factors = {rung: factor(points, rung) for rung in _PRIOR}
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
        drop, hoped = factors[rung] * outcome.drop.value, None
        if rung != 2 and outcome.drop.interval is not None:
            hoped = factors[rung] * (outcome.drop.value + outcome.drop.interval.low) / 2
        found.append(Estimate(trail.number, rung, drop, float(size), latency, flash=flash, ram=ram, hoped=hoped))
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


def layers(found: Sequence[Estimate], goals: Goals) -> list[list[Estimate]]:
    """All estimates by how many frontiers have to be taken away before they are on it."""
    left = [estimate for estimate in found if not estimate.failed]
    result = []
    while left:
        first = frontier(left, goals)
        result.append(first)
        numbers = {estimate.number for estimate in first}
        left = [estimate for estimate in left if estimate.number not in numbers]
    return result


def hypervolume(values: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that points dominate up to the reference (Zitzler and Thiele, 1998), for two objectives, both minimised."""
    inside = sorted(value for value in values if value[0] < reference[0] and value[1] < reference[1])
    area, lowest = 0.0, reference[1]
    for first, second in inside:
        if second < lowest:
            area += (reference[0] - first) * (lowest - second)
            lowest = second
    return area

"""Draws the next point. What a sampler knows is read from the study each time, so that a search can go on anywhere.

Optuna's samplers keep random numbers between trials, which a killed process takes with it. Here each point is drawn by
a fresh sampler whose seed is the search's and the number of the trial, from a study in memory that holds every point
with its estimate of today: the same records give the same point, in whatever process.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.studies.search.neighbours import changed
from compressor.studies.search.opening import opening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from compressor.studies.search import records as known
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung, Space

_WAYS: Final = ("guided", "changed", "guided", "changed", "random")
"""How points are drawn, one after the other: by the sampler, as a small change of the frontier, at random."""
_ATTEMPTS: Final = 50
"""How often a point is drawn anew if it was tried before."""


@dataclass(frozen=True)
class Draw:
    """A point and where it comes from."""

    point: Point
    origin: str
    rung: Rung = 0
    """At which it begins."""


def draw(
    space: Space, points: Sequence[Trail], found: Sequence[Estimate], *, index: int, worker: str = ""
) -> Draw | None:
    """The next point: first those of the opening, then what the sampler proposes; None if all are tried.

    Args:
        space: Of all points.
        points: Those of the study.
        found: Their estimates.
        index: Of this draw; with the search's seed it decides the random numbers.
        worker: Of several that draw at the same time.
    """
    tried = [trail.point for trail in points]
    guided = space.goals.sampler == "guided"
    if guided and (first := opening(space, points, found)) is not None:
        point, rung = first
        return Draw(point, "seed", rung)
    turn = sum(trail.origin in _WAYS for trail in points)  # not `index`: other trials come between, in a rhythm
    for attempt in range(_ATTEMPTS):
        way = _WAYS[turn % len(_WAYS)] if guided and attempt <= _ATTEMPTS // 2 else "random"
        seed = _seed(space.goals.seed, index, attempt, worker)
        near = changed(space, found, points, seed) if way == "changed" else None
        if near is None:
            way = "random" if way == "random" else "guided"
        point = near or _propose(space, points, found, seed, at_random=way == "random")
        if point not in tried and space.is_something(point):
            return Draw(point, way, 1 if way == "changed" and space.trains(point) else space.first_rung(point))
    return None


def _propose(space: Space, points: Sequence[Trail], found: Sequence[Estimate], seed: int, *, at_random: bool) -> Point:
    import optuna

    objectives = 3 if space.goals.times_files else 2
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=_sampler(seed, at_random=at_random))
    distributions = {knob.name: knob.distribution() for knob in space.knobs}
    if not at_random:
        study.add_trials(_trials(space, points, found))
    return space.canonical(dict(study.ask(distributions).params))


def _sampler(seed: int, *, at_random: bool) -> BaseSampler:
    """Tree-structured Parzen estimators over all knobs together (Bergstra et al., 2011; Ozaki et al., 2022)."""
    from optuna.samplers import RandomSampler, TPESampler

    return RandomSampler(seed) if at_random else TPESampler(seed=seed, n_startup_trials=1, multivariate=True)


def _trials(space: Space, points: Sequence[Trail], found: Sequence[Estimate]) -> list[FrozenTrial]:
    """Every point with its estimate; goals are constraints, sizes logarithms so that ratios count."""
    from optuna.trial import TrialState, create_trial

    goals = space.goals
    distributions = {knob.name: knob.distribution() for knob in space.knobs}
    estimates = {estimate.number: estimate for estimate in found}
    trials = []
    for trail in points:
        estimate = estimates.get(trail.number)
        if estimate is None:
            trials.append(create_trial(state=TrialState.RUNNING, params=trail.point, distributions=distributions))
        elif not estimate.failed:
            first, *sizes = estimate.smoothed().values(goals)
            trials.append(
                create_trial(
                    params=trail.point,
                    distributions=distributions,
                    values=[first, *(math.log(max(size, 1e-9)) for size in sizes)],
                    constraints={str(name): by for name, by in estimate.smoothed().violations(goals).items()},
                )
            )
    return trials


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def lost_points(records: Sequence[known.Record]) -> list[known.Record]:
    """First trials of points whose worker ended without a result, if no other trial stands for them."""
    alive = {record.point_number for record in records if record.state != "lost"}
    lost: dict[int, known.Record] = {}
    for record in records:
        is_first = record.point_number == record.number
        if is_first and record.state == "lost" and not record.is_double and record.point_number not in alive:
            lost.setdefault(record.point_number, record)
    return list(lost.values())

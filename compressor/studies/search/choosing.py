"""Which point is the answer, what no other beats, and what each goal costs if no point meets all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compressor.report import GoalCost
from compressor.studies.search.estimates import frontier
from compressor.studies.search.goal_kinds import asked_for
from compressor.studies.search.hypervolume import counts
from compressor.studies.search.schedule import rank

if TYPE_CHECKING:
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.records import Trail
    from compressor.studies.search.worker import View


@dataclass(frozen=True)
class Candidates:
    """Points that were tried in full and meet the goals."""

    confirmed: tuple[Estimate, ...]
    """Also on the data that the search did not see, the best first."""
    passed_over: tuple[Estimate, ...]
    """Not there; better than the first of the others."""


def candidates(view: View, goals: Goals) -> Candidates:
    """The points that meet all goals, split by what `evaluate` says of them."""
    trails = {trail.number: trail for trail in view.points}
    good = sorted(
        (estimate for estimate in in_full(view) if estimate.meets(goals)), key=lambda estimate: rank(estimate, goals)
    )
    confirmed = tuple(estimate for estimate in good if holds_unseen(trails[estimate.number], estimate, goals))
    first = confirmed[0].number if confirmed else None
    passed_over = []
    for estimate in good:
        if estimate.number == first:
            break
        passed_over.append(estimate)
    return Candidates(confirmed, tuple(passed_over))


def holds_unseen(trail: Trail, estimate: Estimate, goals: Goals) -> bool:
    """Whether the goals are met by `evaluate` too, if the search looked at `validate`."""
    outcome = trail.outcome(2)
    if outcome is None or outcome.unseen is None:
        return True
    return replace(estimate, drop=outcome.unseen.value).meets(goals)


def in_full(view: View) -> list[Estimate]:
    """The points of the last rung."""
    return [estimate for estimate in view.estimates if estimate.rung == 2 and not estimate.failed]


def best_known(view: View, goals: Goals) -> list[Estimate]:
    """What no other beats, among the points that were tried in full, by what the search looks at."""
    return frontier(in_full(view), goals)


def by_evaluate(view: View, goals: Goals) -> list[Estimate]:
    """The points of the last rung with their loss by `evaluate`, without those that lose too much to be of any use.

    All of their numbers were measured.
    """
    final = _final_losses(view)
    kept = [estimate for estimate in in_full(view) if counts(estimate.drop, goals.max_drop)]
    return [replace(estimate, drop=final[estimate.number]) for estimate in kept]


def _final_losses(view: View) -> dict[int, float]:
    """Point -> its loss by `evaluate`, of those that were tried in full."""
    outcomes = {trail.number: trail.outcome(2) for trail in view.points}
    drops = {number: outcome.final_drop for number, outcome in outcomes.items() if outcome is not None}
    return {number: drop.value for number, drop in drops.items() if drop is not None}


def costs(view: View, goals: Goals) -> tuple[GoalCost, ...]:
    """For each goal the best value in it among the points that meet all others, by both functions of the task."""
    found: list[GoalCost] = []
    final = _final_losses(view)
    judged = [replace(estimate, drop=max(estimate.drop, final[estimate.number])) for estimate in in_full(view)]
    for kind, wanted in asked_for(goals):
        relaxed = goals.model_copy(update={f"max_{kind.name}": None})
        able = [(kind.reached(estimate), estimate.number) for estimate in judged if estimate.meets(relaxed)]
        reached, number = min(able, default=(None, None))
        found.append(
            GoalCost(
                name=kind.name,
                goal=wanted,
                reached=reached,
                number=number,
            )
        )
    return tuple(found)

"""Why a point was chosen, or why not, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.goals import GOALS
from compressor.studies.search.choosing import holds_unseen, in_full
from compressor.studies.search.estimates import MARGIN, dominates
from compressor.studies.search.goal_kinds import KINDS
from compressor.studies.search.space import RUNGS

if TYPE_CHECKING:
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.records import Trail
    from compressor.studies.search.worker import View


def verdict(view: View, trail: Trail, goals: Goals, *, chosen: int | None) -> str:
    """One short sentence on a point."""
    outcome = trail.last
    if outcome is None or trail.rung is None:
        return "under way"
    if trail.number == chosen:
        return "chosen"
    if outcome.refused is not None:
        return f"not possible: {outcome.refused}"
    estimate = view.estimate(trail.number)
    missed = _misses(estimate, goals)
    if trail.rung != 2:
        return f"not pursued: {RUNGS[trail.rung]} it {missed or 'was not among the best third'}"
    return missed or _beaten(view, trail, estimate, goals)


def _beaten(view: View, trail: Trail, estimate: Estimate, goals: Goals) -> str:
    """Why a point that meets the goals in full was not chosen."""
    outcome = trail.last
    if outcome is not None and outcome.unseen is not None and not holds_unseen(trail, estimate, goals):
        return f"loses {outcome.unseen.value:.4f} on the data that the search had not seen"
    values = estimate.values(goals)
    better = next((other.number for other in in_full(view) if dominates(other.values(goals), values)), None)
    if better is not None:
        return f"beaten by {better} in everything"
    return "meets the goals; another is better in what is minimised"


def _misses(estimate: Estimate, goals: Goals) -> str:
    """What it misses, if it does."""
    missed = estimate.violations(goals)
    return " and ".join(
        GOALS[kind.name].missed(kind.reached(estimate)) for kind in KINDS if missed.get(kind.name, 0.0) > MARGIN
    )

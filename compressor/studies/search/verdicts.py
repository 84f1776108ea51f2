"""Why a point was chosen, or why not, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.goals import GOALS
from compressor.studies.search.choosing import by_evaluate, holds_unseen
from compressor.studies.search.estimates import MARGIN, dominates
from compressor.studies.search.goal_kinds import KINDS, GoalKind

if TYPE_CHECKING:
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.outcomes import Outcome
    from compressor.studies.search.records import Trail
    from compressor.studies.search.worker import View

_WORSE: Final = {"bytes": "larger", "latency": "slower", "drop": "loses more"}
_RUNGS: Final = {0: "without training", 1: "after a short training"}


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
    missed = _misses(estimate, outcome, goals)
    if trail.rung != 2:
        return f"not pursued: {_RUNGS[trail.rung]} it {missed or 'was not among the best third'}"
    return missed or _beaten(view, trail, estimate, goals, chosen)


def _beaten(view: View, trail: Trail, estimate: Estimate, goals: Goals, chosen: int | None) -> str:
    """Why a point that meets the goals in full was not chosen."""
    outcome = trail.last
    if outcome is not None and outcome.unseen is not None and not holds_unseen(trail, estimate, goals):
        return f"loses {outcome.unseen.value:.4f} on the data that the search had not seen"
    reported = by_evaluate(view, goals)
    values = next(other.values(goals) for other in reported if other.number == trail.number)
    better = next((other.number for other in reported if dominates(other.values(goals), values)), None)
    if better is not None:
        return f"in nothing better than {better}"
    return "meets the goals" if chosen is None else f"{_WORSE[goals.objective]} than {chosen}"


def _misses(estimate: Estimate, outcome: Outcome, goals: Goals) -> str:
    """What it misses, if it does, and whether that was measured."""
    missed = estimate.violations(goals)
    return " and ".join(_missed(kind, estimate, outcome) for kind in KINDS if missed.get(kind.name, 0.0) > MARGIN)


def _missed(kind: GoalKind, estimate: Estimate, outcome: Outcome) -> str:
    words, value = GOALS[kind.name], kind.reached(estimate)
    if kind.name == "drop" and outcome.drop is not None and estimate.rung != 2:
        return f"{words.missed(outcome.drop.value)}, in full probably {words.amount(value)}"
    if kind.name == "drop" and outcome.unseen is not None:
        return f"{words.missed(value)} by `validate`"
    if kind.name == "latency" and outcome.latency_ms is None:
        return f"{words.missed(value)} as predicted"
    return words.missed(value)

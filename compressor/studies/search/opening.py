"""The points that are tried first, before a sampler knows anything: how much can go, and how it is trained for.

Models differ in both by a factor of ten, and a point that removes far too much costs as much time as one that is right.
So how much can go is found by bisection: first a half; then the half of what is left to go on with, or half as much, by
what the last one has lost after a short training. The amount that was found is then trained with a higher rate and with
other shares of the original's teaching, as long as that loses less. What was found is last tried in the other ways of
storing and training, and without any training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from compressor.studies.search.hypervolume import most_loss
from compressor.studies.search.knobs import number
from compressor.studies.search.parts import BITS
from compressor.studies.search.retraining import DISTILLED, LEARNING_RATE, RETRAINED, ROUNDED_IN_TRAINING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.outcomes import Outcome
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Rung, Space

_HALVINGS: Final = 4
"""Amounts of the bisection: what can go is known to a sixteenth of all then."""
_LEFT: Final = 0.5
"""Part of the loss after a short training that is taken to stay after the whole one."""
_BOLDER: Final = 0.25
"""By so much of its range the learning rate is raised, 3.2 times."""
_RAISED: Final = 2
"""How often at most."""
_BITS: Final = 3.5
"""On average, beside the usual ones of `mixed`."""


@dataclass(frozen=True)
class _Ask:
    """A point of the opening."""

    point: Point
    rung: Rung
    waits: bool = True
    """Whether what comes next depends on its result."""


@dataclass(frozen=True)
class _Answer:
    """What came out of one."""

    outcome: Outcome
    """Its first, so that what is learned later does not lead another way."""
    rung: Rung
    estimate: Estimate

    @property
    def loss(self) -> tuple[float, float]:
        """By the metric, then by the outputs, which tell apart what a small set of data does not."""
        if self.outcome.drop is None:
            return (float("inf"), float("inf"))
        return (self.outcome.drop.value, self.outcome.outputs_error or 0.0)


@dataclass(frozen=True)
class _Manner:
    """How is trained, beside the usual."""

    bolder: float = 0.0
    """By how much of its range the learning rate is higher."""
    distilled: str | None = None
    """Share of the original's teaching."""
    of_removals: bool = True
    """The rate is for what lost something: other weights are near a minimum, which a high rate would leave."""

    def of(self, space: Space, point: Point) -> Point:
        """A point that is trained so."""
        changed = dict(point)
        for knob in space.knobs:
            # only if it moves: to its place and back a rate may change in its last digit, which is another point
            if knob.name == LEARNING_RATE and self.bolder and (space.steps(point, 0) or not self.of_removals):
                changed[knob.name] = knob.at(knob.place(number(point, knob.name)) + self.bolder)
            elif knob.name == DISTILLED and self.distilled is not None:
                changed[knob.name] = self.distilled
        return space.canonical(changed)


def opening(space: Space, points: Sequence[Trail], found: Sequence[Estimate]) -> tuple[Point, Rung] | None:
    """The next of the first points and its rung; None if all were tried, or it waits for another worker's result.

    Args:
        space: Of all points.
        points: Those of the study.
        found: Their estimates.
    """
    estimates = {estimate.number: estimate for estimate in found}
    plan = _plan(space)
    ask = next(plan, None)
    while ask is not None:
        asked = ask
        trail = next((trail for trail in points if trail.point == asked.point), None)
        if trail is None:
            return ask.point, ask.rung
        if trail.number not in estimates and ask.waits:
            return None
        try:
            ask = plan.send(_answer(trail, estimates.get(trail.number)))
        except StopIteration:
            return None
    return None


def _answer(trail: Trail, estimate: Estimate | None) -> _Answer | None:
    if estimate is None:
        return None
    first = trail.records[0]
    assert first.outcome is not None
    return _Answer(first.outcome, first.rung, estimate)


def _plan(space: Space) -> Generator[_Ask, _Answer | None, None]:
    for point in space.with_nothing_removed():
        yield _Ask(point, space.first_rung(point), waits=False)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        point = space.removing((low + high) / 2)
        if not space.steps(point, 0):
            break
        answer = yield _Ask(point, 1 if space.trains(point) else 0)
        if answer is not None and _leaves_room(answer, space):
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    enough = high if space.goals.max_drop is None or not low else low
    manner = yield from _trained_best(space, low if space.goals.max_drop is not None else high)
    for point in _otherwise(space, enough, manner):
        yield _Ask(point, space.first_rung(point), waits=False)


def _leaves_room(answer: _Answer, space: Space) -> bool:
    """Whether more may go: the loss still counts; without a goal for it, whether the other goals are not met yet."""
    if answer.estimate.failed:
        return False
    if space.goals.max_drop is None:
        return not answer.estimate.meets(space.goals)
    left = _LEFT if answer.rung == 1 else 1.0
    return left * answer.loss[0] <= (most_loss(space.goals.max_drop) or 0.0)


def _trained_best(space: Space, level: float) -> Generator[_Ask, _Answer | None, _Manner]:
    """How the amount that was found loses least after a short training: a rate, then a share of the teaching."""
    base = space.removing(level)
    best = _Manner(of_removals=space.trains(base))
    if not space.trains(base):
        base = next((point for point in _otherwise(space, level, best) if space.trains(point)), base)
    if not space.trains(base):
        return best
    answer = yield _Ask(base, 1)
    if answer is None:
        return best
    least = answer.loss
    for times in range(_RAISED):
        manner = replace(best, bolder=_BOLDER * (1 + times))
        answer = yield _Ask(manner.of(space, base), 1)
        if answer is None or answer.loss >= least:
            break
        best, least = manner, answer.loss
    shares = next((knob.words for knob in space.knobs if knob.name == DISTILLED), ())
    for manner in [replace(best, distilled=share) for share in shares if share != base[DISTILLED]]:
        answer = yield _Ask(manner.of(space, base), 1)
        if answer is not None and answer.loss < least:
            best, least = manner, answer.loss
    return best


def _otherwise(space: Space, level: float, manner: _Manner) -> list[Point]:
    """The amount that was found evenly, in fewer bits, trained in those, and untrained; also with nothing removed."""
    points = [manner.of(space, space.at(level, 0.0, word)) for word in (space.usual, *space.few)]
    few: Point = {BITS: _BITS} if space.mixes else {}
    ways: list[tuple[str, Point]] = [("mixed", {})] if space.mixes else []
    ways += [(word, {ROUNDED_IN_TRAINING: "yes"}) for word in (space.retraining.rounds if space.retraining else ())]
    for word, more in ways:
        for each in (0.0, level):
            point = space.at(each, 1.0, word) | (few if word == "mixed" else {}) | more
            points.append(manner.of(space, point))
    if space.retraining is not None:
        word = "mixed" if space.mixes else (*space.few, space.usual)[0]
        points += [space.at(each, 1.0, word) | {RETRAINED: "no"} for each in (level / 2, level) if space.parts]
    return space.worth_trying(points)

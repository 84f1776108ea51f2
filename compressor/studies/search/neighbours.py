"""The plane of losses and bytes in which files are weighed, and small changes of the points on its frontier."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.studies.search.estimates import dominates, frontier
from compressor.studies.search.hypervolume import expected_gain, hypervolume, most_loss
from compressor.studies.search.knobs import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Knob, Point
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Space

_SPREAD: Final = 0.08
"""Standard deviation of a small change, in parts of a knob's range."""
_SMALLER: Final = 0.7
"""Of the small changes of how much goes, so many make the file smaller."""
_MOST_CHANGED: Final = 3
"""Knobs that are changed at once."""


@dataclass(frozen=True)
class Plane:
    """The files of a study in the plane of (likely loss, log of bytes)."""

    front: tuple[tuple[float, float], ...]
    reference: tuple[float, float]

    @classmethod
    def of(cls, found: Sequence[Estimate], space: Space, original: float) -> Plane:
        """Of the points that were tried in full.

        Args:
            found: All estimates.
            space: With the goals: losses count up to `most_loss`, or up to the largest so far if that is none.
            original: Bytes of the original's file.
        """
        files = [(one.smoothed().drop, math.log(one.bytes)) for one in found if one.rung == 2 and not one.failed]
        most = most_loss(space.goals.max_drop)
        worst = largest_loss([loss for loss, _ in files]) if most is None else most
        front = [own for own in files if not any(dominates(other, own) for other in files)]
        return cls(tuple(dict.fromkeys(front)), (worst, math.log(original)))

    def gain(self, loss: float, error: float, size: float) -> float:
        """Area that a file is expected to add."""
        return expected_gain(self.front, loss, error, math.log(size), self.reference)

    @property
    def area(self) -> float:
        """Of the files so far."""
        return hypervolume(self.front, self.reference)


def changed(space: Space, found: Sequence[Estimate], points: Sequence[Trail], seed: int) -> Point | None:
    """A small change of a point of the frontier; None if nothing was tried in full.

    Args:
        space: Of all points.
        found: Estimates of the points.
        points: Of the study.
        seed: Decides what is changed, and how.
    """
    files = [one.smoothed() for one in found if one.rung == 2 and not one.failed]
    front, most = frontier(files, space.goals), most_loss(space.goals.max_drop)
    if not front:
        return None
    draws = random.Random(seed)
    parent = draws.choice([one for one in front if most is None or one.drop < most] or front)
    point = dict(next(trail.point for trail in points if trail.number == parent.number))
    idle = space.idle(point)
    knobs = [knob for knob in space.knobs if knob.name not in idle]
    for knob in draws.sample(knobs, min(len(knobs), draws.randint(1, _MOST_CHANGED))):
        point[knob.name] = _moved(knob, point, draws)
    return space.canonical(point)


def _moved(knob: Knob, point: Point, draws: random.Random) -> float | int | str:
    if knob.words:
        return draws.choice([word for word in knob.words if word != point[knob.name]] or list(knob.words))
    step = abs(draws.gauss(0.0, _SPREAD)) + 0.01
    place = knob.place(number(point, knob.name))
    if knob.removes:
        up = draws.random() < _SMALLER
    elif knob.keeps:
        up = draws.random() >= _SMALLER
    else:
        up = draws.random() < 0.5
    return knob.at(min(1.0, max(0.0, place + (step if up else -step))))


def largest_loss(losses: Sequence[float]) -> float:
    """The scale of losses if the goals give none; any does as long as nothing was lost."""
    largest = max(losses, default=0.0)
    return largest if largest > 0.0 else 1.0


def most_promising(waiting: Sequence[Estimate], found: Sequence[Estimate], space: Space, original: float) -> Estimate:
    """The one that is expected to add most to the frontier of files, if it gives in full what its estimate says."""
    plane = Plane.of(found, space, original)
    return max(waiting, key=lambda one: (plane.gain(one.smoothed().drop, one.error, max(one.bytes, 1.0)), -one.number))

r"""Points beside those that were tried in full: the same model stored otherwise, and small changes of the frontier.

A model that was retrained is worth more than one file: stored in another precision it costs an export, and a training
only if the model was forgotten meanwhile or another process had it. Which file is next does not depend on that, so that
a search that was stopped goes on as it would have.

What its loss is then, is taken from the parent's: to first order rounding to :math:`b` bits moves the outputs by a
squared error that falls as :math:`4^{-b}`, so

.. math::
    D_b = D_a + k \, (4^{-b} - 4^{-a})

with :math:`k` from the files of one model in two precisions that were written so far, and a prior.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.studies.search.estimates import dominates, frontier
from compressor.studies.search.hypervolume import expected_gain, hypervolume, most_loss
from compressor.studies.search.knobs import number
from compressor.studies.search.parts import BITS
from compressor.studies.search.stored import MIDDLE, bits_of_weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Knob, Point
    from compressor.studies.search.prediction import Graphs
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Space

SIBLINGS: Final = 3
"""Files of one retrained model at most, beside the first."""
OF_THE_ORIGINAL: Final = 12
"""The same of a model that is not retrained, such as the original, whose files are all that many searches need."""
_WORTH: Final = 0.5
"""Of what a trial so far added to the area on average, that a file in another precision must be expected to add.

A patch is left if it gives less than the mean of all (Charnov, 1976, the marginal value theorem); half, since later
trials add less than the first ones did.
"""
_BITS_APART: Final = (-1.0, -0.5, 0.5, 1.0)
_PRIOR_BITS: Final = 4.5
"""At which rounding is taken to cost half of the allowed loss, before anything was seen."""
_PRIOR_WEIGHT: Final = 2.0
"""As many pairs does that count for."""
_DOUBT: Final = 0.5
"""Standard error of what rounding costs, in parts of it."""
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
        worst = _largest([loss for loss, _ in files]) if most is None else most
        front = [own for own in files if not any(dominates(other, own) for other in files)]
        return cls(tuple(dict.fromkeys(front)), (worst, math.log(original)))

    def gain(self, loss: float, error: float, size: float) -> float:
        """Area that a file is expected to add."""
        return expected_gain(self.front, loss, error, math.log(size), self.reference)

    @property
    def area(self) -> float:
        """Of the files so far."""
        return hypervolume(self.front, self.reference)


def sibling(
    space: Space, points: Sequence[Trail], found: Sequence[Estimate], graphs: Graphs, original: float
) -> Point | None:
    """The file of a model that was tried in full, in another precision, that is expected to add most; None if little.

    Args:
        space: Of all points.
        points: Those of the study.
        found: Their estimates.
        graphs: What files hold beside weights.
        original: Bytes of the original's file.
    """
    plane = Plane.of(found, space, original)
    tried = [trail.point for trail in points]
    families = _families(space, points)
    cost = _cost_of_rounding(space, families, found)
    best, most = None, _WORTH * plane.area / max(1, sum(len(trail.records) for trail in points))
    for parent in found:
        trail = next(trail for trail in points if trail.number == parent.number)
        family = families[_model(space, trail.point)]
        most_files = SIBLINGS if space.trains(trail.point) else OF_THE_ORIGINAL
        if parent.rung != 2 or parent.failed or sum(one.origin == "sibling" for one in family) >= most_files:
            continue
        for point in _stored_otherwise(space, trail.point):
            if point in tried or not space.is_something(point):
                continue
            size = _bytes(space, trail, point, graphs)
            moved = cost * (_noise(space, point) - _noise(space, trail.point))
            error = abs(_DOUBT * moved)  # the parent's own error is that of its point of the frontier too
            gain = plane.gain(parent.smoothed().drop + moved, error, size)
            if gain > most:
                best, most = point, gain
    return best


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


def _stored_otherwise(space: Space, point: Point) -> list[Point]:
    """The same model in each other precision, and in a few bits more and fewer."""
    if len(space.precisions) < 2:
        return []
    points = [space.canonical(point | {"precision": word}) for word in space.precisions]
    bits = next((knob for knob in space.knobs if knob.name == BITS), None)
    if bits is not None:
        middle = number(point, BITS) if space.precision(point) == "mixed" else MIDDLE
        points += [
            space.canonical(point | {"precision": "mixed", BITS: bits.nearest(middle + apart)}) for apart in _BITS_APART
        ]
    return [other for other in points if other != point and space.steps(other, 2) == space.steps(point, 2)]


def _model(space: Space, point: Point) -> str:
    return json.dumps(space.steps(point, 2), sort_keys=True)


def _families(space: Space, points: Sequence[Trail]) -> dict[str, list[Trail]]:
    """The points of each model."""
    families: dict[str, list[Trail]] = {}
    for trail in points:
        families.setdefault(_model(space, trail.point), []).append(trail)
    return families


def _noise(space: Space, point: Point) -> float:
    return math.pow(4.0, -bits_of_weight(space.stored(point)))


def _bytes(space: Space, parent: Trail, point: Point, graphs: Graphs) -> float:
    """Of the file, the weights being in proportion to their bits."""
    outcome = parent.outcome(2)
    assert outcome is not None
    assert outcome.weight_bytes is not None
    stored, before = space.stored(point), space.stored(parent.point)
    weights = outcome.weight_bytes * bits_of_weight(stored) / bits_of_weight(before)
    return weights + graphs.bytes(stored.word)


def _largest(losses: Sequence[float]) -> float:
    """The scale of losses if the goals give none; any does as long as nothing was lost."""
    largest = max(losses, default=0.0)
    return largest if largest > 0.0 else 1.0


def _cost_of_rounding(space: Space, families: Mapping[str, Sequence[Trail]], found: Sequence[Estimate]) -> float:
    """The factor k, by least squares over pairs of files of one model, and a prior."""
    losses = [abs(one.smoothed().drop) for one in found if one.rung == 2 and not one.failed]
    scale = space.goals.max_drop or _largest(losses)
    noise = math.pow(4.0, -_PRIOR_BITS)
    above, below = _PRIOR_WEIGHT * noise * scale / 2, _PRIOR_WEIGHT * noise**2
    known = {one.number: one for one in found if one.rung == 2 and not one.failed}
    for family in families.values():
        files = [trail for trail in family if trail.number in known]
        for trail in files[1:]:
            x = _noise(space, trail.point) - _noise(space, files[0].point)
            y = known[trail.number].smoothed().drop - known[files[0].number].smoothed().drop
            above, below = above + x * y, below + x * x
    return max(0.0, above / below)


def most_promising(waiting: Sequence[Estimate], found: Sequence[Estimate], space: Space, original: float) -> Estimate:
    """The one that is expected to add most to the frontier of files, if it gives in full what its estimate says."""
    plane = Plane.of(found, space, original)
    return max(waiting, key=lambda one: (plane.gain(one.smoothed().drop, one.error, max(one.bytes, 1.0)), -one.number))

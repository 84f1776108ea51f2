r"""Further files of models that were tried in full: the same model stored otherwise.

A model that was retrained is worth more than one file: stored in another precision it costs an export, and a training
only if the model was forgotten meanwhile or another process had it. Which file is next does not depend on that, so that
a search that was stopped goes on as it would have.

What its loss is then, is taken from those of the model's files so far: to first order rounding to :math:`b` bits moves
the outputs by a squared error that falls as :math:`4^{-b}`, so by each file of :math:`a` bits

.. math::
    D_b = D_a + k \, (4^{-b} - 4^{-a})

with :math:`k` from the files of one model in two precisions that were written so far, and a prior. The mean of them
counts, each by its variance: a file of far fewer bits says little of one of more, whose loss it would put below 0.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.studies.search.knobs import number
from compressor.studies.search.neighbours import Plane, largest_loss
from compressor.studies.search.parts import BITS
from compressor.studies.search.stored import MIDDLE, bits_of_weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.knobs import Point
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
_NO_ERROR: Final = 1e-18
"""Variance below which a loss is exact."""


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
    known = {one.number: one.smoothed() for one in found if one.rung == 2 and not one.failed}
    cost = _cost_of_rounding(space, families, known)
    best, most = None, _WORTH * plane.area / max(1, sum(len(trail.records) for trail in points))
    for family in families.values():
        parents = [trail for trail in family if trail.number in known]
        files = [_File.of(known[trail.number], _noise(space, trail.point)) for trail in parents]
        if not space.steps(family[0].point, 2):
            files.append(_ORIGINAL)
        most_files = SIBLINGS if space.trains(family[0].point) else OF_THE_ORIGINAL
        if sum(trail.origin == "sibling" for trail in family) >= most_files:
            continue
        for parent in parents:
            for point in _stored_otherwise(space, parent.point):
                if point in tried or not space.is_something(point):
                    continue
                loss, error = _likely(files, _noise(space, point), cost)
                gain = plane.gain(loss, error, _bytes(space, parent, point, graphs))
                if gain > most:
                    best, most = point, gain
    return best


@dataclass(frozen=True)
class _File:
    """A file of a model."""

    loss: float
    error: float
    noise: float
    """Of its rounding."""

    @classmethod
    def of(cls, estimate: Estimate, noise: float) -> _File:
        """What was found."""
        return cls(estimate.drop, estimate.error, noise)


_ORIGINAL: Final = _File(loss=0.0, error=0.0, noise=0.0)
"""The model that losses are told from."""


def _likely(files: Sequence[_File], noise: float, cost: float) -> tuple[float, float]:
    """What a further file of a model loses by all those so far, and the standard error of what rounding changes.

    The error of the files themselves is that of their points of the frontier too, so it weighs them and no more.
    """
    losses, weights, errors = [], [], []
    for one in files:
        moved = cost * (noise - one.noise)
        losses.append(one.loss + moved)
        errors.append(_DOUBT * moved)
        weights.append(1.0 / max(one.error**2 + errors[-1] ** 2, _NO_ERROR))
    total = sum(weights)
    mean = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / total
    return mean, abs(sum(weight * error for weight, error in zip(weights, errors, strict=True))) / total


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


def _cost_of_rounding(space: Space, families: Mapping[str, Sequence[Trail]], known: Mapping[int, Estimate]) -> float:
    """The factor k, by least squares over pairs of files of one model, and a prior."""
    scale = space.goals.max_drop or largest_loss([abs(one.drop) for one in known.values()])
    noise = math.pow(4.0, -_PRIOR_BITS)
    above, below = _PRIOR_WEIGHT * noise * scale / 2, _PRIOR_WEIGHT * noise**2
    for family in families.values():
        files = [trail for trail in family if trail.number in known]
        for trail in files[1:]:
            x = _noise(space, trail.point) - _noise(space, files[0].point)
            y = known[trail.number].drop - known[files[0].number].drop
            above, below = above + x * y, below + x * x
    return max(0.0, above / below)

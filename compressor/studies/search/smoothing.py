r"""Losses with a part of their noise taken out.

A metric on few samples moves in steps: one of 54 is 0.0185. How far the outputs are from the original's moves smoothly.
Over all results, loss :math:`D` is taken as :math:`c \, g` with :math:`g` the outputs' error, and a scatter
:math:`\tau` around it; of each result the two opinions, each with its variance, give one (empirical Bayes; Efron and
Morris, 1975):

.. math::
    \hat D = \frac{D / s^2 + c g / \tau^2}{1 / s^2 + 1 / \tau^2}, \quad \hat s = (1 / s^2 + 1 / \tau^2)^{-1/2}

where :math:`s` is the standard error of the measured loss, from its interval.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.studies.search.outcomes import Outcome

_FEWEST: Final = 5
"""Results with both numbers from which on the outputs' error is believed."""
_WIDTH: Final = 2 * 1.96
"""Of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Likely:
    """A loss."""

    value: float
    error: float
    """Its standard error; 0 if the task gives no interval."""


@dataclass(frozen=True)
class Smoothing:
    """What a set of results says of the noise of each."""

    slope: float
    """Loss for each unit of the outputs' error."""
    scatter: float
    """Of losses around it, beside their noise; infinite: the outputs' error says nothing."""
    least: float
    """The smallest standard error that is believed: no change in a few samples does not mean that there is none."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Smoothing:
        """From all results of a study."""
        errors = [error for one in outcomes if (error := _error(one))]
        least = statistics.median(errors) if errors else 0.0
        pairs = [
            (one.outputs_error, one.drop.value, max(_error(one), least))
            for one in outcomes
            if one.drop is not None and math.isfinite(one.drop.value) and one.outputs_error is not None
        ]
        above = math.fsum(gap * drop for gap, drop, _ in pairs)
        below = math.fsum(gap * gap for gap, _, _ in pairs)
        if len(pairs) < _FEWEST or below <= 0.0:
            return cls(0.0, math.inf, least)
        slope = max(0.0, above / below)
        rest = math.fsum((drop - slope * gap) ** 2 - error**2 for gap, drop, error in pairs) / len(pairs)
        return cls(slope, math.sqrt(max(rest, least**2 / 4)), least)

    def likely(self, outcome: Outcome) -> Likely:
        """The loss of a result that has one."""
        assert outcome.drop is not None
        error = max(_error(outcome), self.least)
        if outcome.outputs_error is None or not error or not math.isfinite(self.scatter):
            return Likely(outcome.drop.value, error)
        measured, smooth = 1.0 / error**2, 1.0 / max(self.scatter, 1e-12) ** 2
        value = (measured * outcome.drop.value + smooth * self.slope * outcome.outputs_error) / (measured + smooth)
        return Likely(value, 1.0 / math.sqrt(measured + smooth))


def _error(outcome: Outcome) -> float:
    """Standard error of a measured loss; 0 if it has no interval."""
    if outcome.drop is None or outcome.drop.interval is None:
        return 0.0
    return (outcome.drop.interval.high - outcome.drop.interval.low) / _WIDTH

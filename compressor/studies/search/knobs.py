"""What of a recipe may be turned: a knob is one number or word, a point gives each of them a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

Value = float | int | str
Point = dict[str, Value]
"""Name of a knob -> its value, every knob of the space once."""


@dataclass(frozen=True)
class Knob:
    """A number between two bounds, or one of several words."""

    name: str
    low: float = 0.0
    high: float = 1.0
    step: float | None = None
    log: bool = False
    """Equal ratios are equally likely, not equal differences."""
    words: tuple[str, ...] = ()
    """The choices; a number if there are none."""
    removes: bool = False
    """The larger it is, the smaller is the file."""
    keeps: bool = False
    """The larger it is, the larger is the file."""

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.words:
            return CategoricalDistribution(self.words)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    @property
    def is_whole(self) -> bool:
        """Whether it takes whole numbers."""
        return self.step == 1

    def takes(self, value: Value) -> bool:
        """Whether it can have this value."""
        if self.words:
            return value in self.words
        return isinstance(value, (int, float)) and self.low - 1e-9 <= value <= self.high + 1e-9

    def at(self, place: float) -> Value:
        """The value at a place from 0 (the lowest) to 1 (the highest); beyond them the lowest or the highest."""
        if self.words:
            return self.words[max(0, min(int(place * len(self.words)), len(self.words) - 1))]
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        return self.nearest(value)

    def place(self, value: float) -> float:
        """Where a value is, from 0 (the lowest) to 1 (the highest)."""
        if self.high <= self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def nearest(self, number: float) -> Value:
        """The value that is nearest to a number."""
        inside = min(max(number, self.low), self.high)
        if self.is_whole:
            return round(inside)
        return inside if self.step is None else round(self.low + round((inside - self.low) / self.step) * self.step, 9)


def number(point: Mapping[str, Value], name: str, default: float = 0.0) -> float:
    """The value of a knob that is a number; `default` if the space has no such knob."""
    return float(point.get(name, default))

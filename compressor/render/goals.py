"""The words for what a search can be asked for: one table, which reports and messages read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.render import format as form

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compressor.report import GoalName


@dataclass(frozen=True)
class GoalWords:
    """Of one goal."""

    least: str
    """The best value of it."""
    thing: str
    """That has the value."""
    verb: str
    """What a file does with the value."""
    of: str
    """What follows the value."""
    amount: Callable[[float], str]
    """The value with its unit."""

    def missed(self, value: float) -> str:
        """What is said of a file that misses the goal."""
        return f"{self.verb} {self.amount(value)}{self.of}"


GOALS: Final[Mapping[GoalName, GoalWords]] = {
    "drop": GoalWords("smallest loss", "a loss", "loses", "", lambda value: f"{value:.4g}"),
    "bytes": GoalWords("smallest file", "a file", "has", "", form.decimal_size),
    "latency": GoalWords("lowest latency", "a latency", "takes", "", form.milliseconds),
    "flash": GoalWords("least flash", "flash", "takes", " of flash", form.decimal_size),
    "ram": GoalWords("least RAM", "RAM", "takes", " of RAM", form.decimal_size),
}

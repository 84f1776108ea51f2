"""How much of the time limit is left, restarts included."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.studies.search.records import Record
    from compressor.studies.search.space import Rung

_LATE: Final = 0.6
"""Part of the time after which the best is confirmed before anything else is tried."""
_SLACK: Final = 8.0
"""Seconds for the report."""


def processor_seconds() -> float:
    """Of this process and of those that it started and that ended: what a busy machine does not change much."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class Clock:
    """The time limit of a search."""

    limit: float | None
    """In seconds; None if only the number of trials counts."""
    spent: float = 0.0
    """By earlier processes."""
    final: float = 0.0
    """Seconds of a final run beside its training."""
    now: Callable[[], float] = time.monotonic
    """Seconds of some clock."""
    started: float | None = None
    """By that clock; now if it is left out."""

    def __post_init__(self) -> None:
        """Start."""
        if self.started is None:
            self.started = self.now()

    def used(self) -> float:
        """Seconds so far."""
        assert self.started is not None
        return self.spent + self.now() - self.started

    def left(self) -> float | None:
        """Seconds that are left; None without a limit."""
        return None if self.limit is None else self.limit - self.used()

    def is_late(self) -> bool:
        """Whether most of the time is over."""
        return self.limit is not None and self.used() > _LATE * self.limit

    def has_time_for(self, rung: Rung, records: Sequence[Record]) -> bool:
        """Whether a trial of a rung, as long as the longest so far, and a final run fit into what is left."""
        left = self.left()
        if left is None:
            return True
        longest = {level: _longest(records, level) for level in (rung, 2)}
        return left > longest[rung] + longest[2] + self.final + _SLACK


def _longest(records: Sequence[Record], rung: Rung) -> float:
    return max((record.outcome.seconds for record in records if record.rung == rung and record.outcome), default=0.0)

"""How much of the time limit is left, restarts included."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.studies.search.records import Record
    from compressor.studies.search.space import Rung

_LATE: Final = 0.6
"""Part of the time after which the best is confirmed before anything else is tried."""
RETRAIN_SHARE: Final = 0.08
"""Of the time limit that the longest retraining may take."""
_SLACK: Final = 8.0
"""Seconds for the report."""


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

    def is_late(self, records: Sequence[Record]) -> bool:
        """Whether the best is confirmed before anything else: most of the time is over, or just enough is left."""
        left = self.left()
        if self.limit is None or left is None:
            return False
        way = self.expected(0, records) + self.expected(1, records) + self.expected(2, records)
        return self.used() > _LATE * self.limit or left < way + self.at_the_end(records)

    def has_time_for(self, rung: Rung, records: Sequence[Record]) -> bool:
        """Whether a trial of a rung and a final run fit into what is left."""
        left = self.left()
        return left is None or left > self.expected(rung, records) + self.at_the_end(records)

    def at_the_end(self, records: Sequence[Record]) -> float:
        """Seconds that are kept for the final run, which does what a trial in full does and more."""
        return self.expected(2, records) + self.final + _SLACK

    def expected(self, rung: Rung, records: Sequence[Record]) -> float:
        """Seconds of a trial: the longest of this rung so far, or what is known of it before there was one."""
        seconds = [record.outcome.seconds for record in records if record.rung == rung and record.outcome]
        if seconds or rung == 0:
            return max(seconds, default=0.0)
        if rung == 1:
            return self.expected(0, records)
        return self.expected(0, records) + RETRAIN_SHARE * (self.limit or 0.0) + self.final / 2

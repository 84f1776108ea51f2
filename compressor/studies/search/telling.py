"""What a search says while it goes on: trials done, the best so far, the time that is left, and the frontier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compressor.render.format import decimal_size, duration
from compressor.studies.search.choosing import best_known
from compressor.studies.search.schedule import rank

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.studies.search.clock import Clock
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.worker import Job, View

_SHOWN = 6


@dataclass
class Teller:
    """Tells about one search."""

    goals: Goals
    clock: Clock
    progress: Progress
    _said: str = field(default="")

    def told(self, view: View, job: Job | None) -> None:
        """One line whenever the frontier of files changed."""
        front = best_known(view, self.goals)
        line = frontier_line(front, self.goals)
        if line == self._said or not front:
            return
        self._said = line
        self.progress.say(f"{self._state(view)}; {line}")

    def _state(self, view: View) -> str:
        done = sum(record.state == "done" for record in view.records)
        left = self.clock.left()
        time = "" if left is None else f", {duration(max(0.0, left))} left"
        return f"{done} trials of {len(view.points)} points{time}"


def frontier_line(front: list[Estimate], goals: Goals) -> str:
    """The best point, and the frontier from the smallest file on."""
    if not front:
        return "nothing tried in full yet"
    best = min(front, key=lambda estimate: rank(estimate, goals))
    met = "best" if best.meets(goals) else "nearest"
    others = ", ".join(_short(estimate) for estimate in front[:_SHOWN])
    more = f" and {len(front) - _SHOWN} more" if len(front) > _SHOWN else ""
    return f"{met} {_short(best)}; frontier {others}{more}"


def _short(estimate: Estimate) -> str:
    latency = f" {estimate.latency:.3g} ms" if estimate.latency else ""
    return f"{decimal_size(estimate.bytes)} at {estimate.drop:+.4f}{latency}"

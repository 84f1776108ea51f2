"""What a search says while it goes on: trials done, the best so far, the time that is left, and the frontier."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compressor.progress import SilentBar
from compressor.render.format import decimal_size, duration, plural
from compressor.studies.search.choosing import best_known
from compressor.studies.search.schedule import rank
from compressor.studies.search.space import RUNGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.progress import Bar, Progress
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
    _said: str = ""
    _bar: Bar = field(default_factory=SilentBar)
    _done: int = 0

    @contextmanager
    def bar(self) -> Iterator[None]:
        """Show within the block that the search goes on: a bar, which every trial moves."""
        with self.progress.bar("trials", None) as self._bar:
            yield

    def told(self, view: View, job: Job | None) -> None:
        """Where the search is; one line that stays whenever the frontier of files changed."""
        front = best_known(view, self.goals)
        done = _done(view)
        now = "" if job is None else f", now one {RUNGS[job.rung]}"
        self._bar.advance(done - self._done, f"of {plural(len(view.points), 'point')}{self._left()}{now}")
        self._done = done
        line = frontier_line(front, self.goals)
        if line == self._said or not front:
            return
        self._said = line
        self.progress.say(f"{done} trials of {plural(len(view.points), 'point')}{self._left()}; {line}")

    def _left(self) -> str:
        left = self.clock.left()
        return "" if left is None else f", {duration(max(0.0, left))} left"


def _done(view: View) -> int:
    return sum(record.state == "done" for record in view.records)


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
    return f"{decimal_size(estimate.bytes)} at {estimate.drop:+z.4f}{latency}"

"""One worker of a search: takes what is to be done next, does it, and tells the study, until nothing is left."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from compressor.studies.search.estimates import estimates
from compressor.studies.search.further_files import sibling
from compressor.studies.search.records import models_of, trails
from compressor.studies.search.sampling import draw, lost_points
from compressor.studies.search.schedule import promotion, rank

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from compressor.studies.search.clock import Clock
    from compressor.studies.search.estimates import Estimate
    from compressor.studies.search.evaluation import Evaluator
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.prediction import Graphs
    from compressor.studies.search.records import Record, Trail
    from compressor.studies.search.space import Rung, Space
    from compressor.studies.search.storage import Store
    from compressor.studies.search.study_facts import OriginalFile


_SPARES: Final = 4
"""Points that are tried in full at the end, the best by their estimates."""
_PAUSE: Final = 2.0
"""Seconds after which a worker without work looks again."""


@dataclass(frozen=True)
class View:
    """A study at one moment."""

    records: list[Record]
    points: list[Trail]
    estimates: list[Estimate]
    graphs: Graphs
    """What its files hold beside weights."""

    def estimate(self, number: int) -> Estimate:
        """Of a point."""
        return next(estimate for estimate in self.estimates if estimate.number == number)


@dataclass(frozen=True)
class Job:
    """What is done next."""

    point: Point
    rung: Rung
    origin: str
    point_number: int | None = None
    trial: int | None = None
    """A trial that was begun and not finished, by a process that is no more."""


@dataclass
class Worker:
    """Carries out trials of one study."""

    store: Store
    space: Space
    evaluator: Evaluator
    clock: Clock
    graphs: Graphs
    """Of the original."""
    original: OriginalFile
    name: str = ""
    """Of several workers; they draw different points."""
    interrupted: bool = False
    """Whether somebody asked for an end."""
    told: Callable[[View, Job | None], None] = field(default=lambda view, job: None)
    """Told before each trial and at the end."""
    telling: Callable[[], AbstractContextManager[None]] = nullcontext
    """Within the block what is told is shown."""

    def view(self) -> View:
        """The study as it is now."""
        records = self.store.records()
        points = trails(records)
        graphs = self.graphs.with_files(records)
        return View(records, points, estimates(points, self.space.goals, graphs, self.space.trains), graphs)

    def work(self) -> View:
        """Go on until the limits of the goals are reached, or everything was tried.

        Raises:
            KeyboardInterrupt: Somebody asked for an end.
        """
        while True:
            if self.interrupted:
                raise KeyboardInterrupt
            self.store.give_up_stale()
            view = self.view()
            job = self.next(view)
            self.told(view, job)
            if job is None and self._others_work(view):
                time.sleep(_PAUSE)
                continue
            if job is None or not self.clock.has_time_for(job.rung, view.records):
                return view
            number = job.trial
            if number is None:
                number = self.store.begin(self.space, job.point, job.rung, job.origin, job.point_number)
            if number is None:  # another worker was faster
                continue
            with self.store.alive(number):
                outcome = self.evaluator.at(job.point, job.rung)
            self.store.finish(number, outcome)

    def next(self, view: View) -> Job | None:
        """What is to be done now; None if nothing is left."""
        return (
            self._unfinished(view)
            or self._further(view)
            or self._stored_otherwise(view)
            or self._new(view)
            or self._closing(view)
        )

    def _unfinished(self, view: View) -> Job | None:
        """A trial of a process that ended: the same one if no other worker can have it, or else one like it."""
        if not self.store.shared:
            for record in view.records:
                if record.state == "running":
                    return Job(record.point, record.rung, record.origin, record.point_number, record.number)
        for record in lost_points(view.records):
            return Job(record.point, record.rung, record.origin, record.point_number)
        return None

    def _further(self, view: View) -> Job | None:
        if self.clock.is_late(view.records) and (best := self._closing(view)) is not None:
            return best
        chosen = promotion(view.points, view.estimates, self.space, float(self.original.bytes))
        return None if chosen is None else _promoted(chosen.trail, chosen.rung)

    def _stored_otherwise(self, view: View) -> Job | None:
        """Another file of a model that was tried in full, at once in full: no training if the model is kept."""
        if self.space.goals.sampler != "guided" or self._are_enough(view):
            return None
        point = sibling(self.space, view.points, view.estimates, view.graphs, float(self.original.bytes))
        return None if point is None else Job(point, 2, "sibling")

    def _are_enough(self, view: View) -> bool:
        """Whether as many points as the goals allow were tried; files of a model that was tried are no further ones."""
        goals = self.space.goals
        begun = [record for record in view.records if record.state != "lost"]
        return goals.trials is not None and len(models_of(begun)) >= goals.trials

    def _new(self, view: View) -> Job | None:
        if self._are_enough(view):
            return None
        drawn = draw(self.space, view.points, view.estimates, index=len(view.records), worker=self.name)
        return None if drawn is None else Job(drawn.point, drawn.rung, drawn.origin)

    def _closing(self, view: View) -> Job | None:
        """The best by the estimates go on until they were tried in full: several, since the first may not hold."""
        points = {trail.number: trail for trail in view.points}
        able = [estimate for estimate in view.estimates if not estimate.failed]
        for estimate in sorted(able, key=lambda estimate: rank(estimate.hopeful(), self.space.goals))[:_SPARES]:
            trail = points[estimate.number]
            after: Rung = 1 if trail.rung == 0 and self.space.trains(trail.point) else 2
            if trail.rung != 2 and after not in trail.begun:
                return _promoted(trail, after)
        return None

    def _others_work(self, view: View) -> bool:
        """Whether another worker is at something after which there may be more to do, or which it may never end."""
        left = self.clock.left()
        running = any(record.state == "running" for record in view.records)
        return self.store.shared and running and (left is None or left > self.clock.final)


def _promoted(trail: Trail, rung: Rung) -> Job:
    return Job(trail.point, rung, trail.origin, trail.number)

"""A search from beginning to end: try the task, make the space, let workers try points, choose, run, report."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compressor.progress import Progress, Silent
from compressor.studies.search import outcome_report
from compressor.studies.search.final import Finals, final_run
from compressor.studies.search.folder import SearchFolder
from compressor.studies.search.preparing import prepare
from compressor.studies.search.workers import work_on_ray, work_together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from compressor.report import SearchReport
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place
    from compressor.studies.search.worker import Worker

_SILENT = Silent()


def search(goals: Goals, place: Place, *, progress: Progress = _SILENT) -> SearchReport:
    """Find the recipe that meets the goals best, and run it.

    The folder receives `best/`, a normal run of the chosen recipe, `frontier/`, the recipes that nothing beats, the
    report as `report.json`, `report.md` and `report.html`, and the study, from which the same call goes on.
    `KeyboardInterrupt` ends the search early: what was found so far is reported, with `interrupted` set.

    Args:
        goals: What is asked for.
        place: Task, folder and storage.
        progress: Told what goes on.

    Raises:
        CompressorError: See `compressor.errors`; also if nothing in the space can reach the goals.
    """
    with SearchFolder(place.out, goals, place.task):
        worker = prepare(goals, place, progress=progress)
        finals = Finals(None)
        interrupted = False
        try:
            with _noting_interrupts(worker), worker.telling():
                _work(worker, goals, place, progress)
            finals = final_run(worker, worker.view(), place, progress)
        except KeyboardInterrupt:
            interrupted = True
        return outcome_report.write(worker, place, finals, interrupted=interrupted)


@contextmanager
def _noting_interrupts(worker: Worker) -> Iterator[None]:
    """Let the worker know of a Ctrl-C too: Python drops an exception that is raised while an object is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        worker.interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(worker: Worker, goals: Goals, place: Place, progress: Progress) -> None:
    """Try points, here or by workers of their own, until the goals' budget is used up."""
    if not place.is_shared or (place.jobs == 1 and place.ray is None):
        worker.work()
        return
    if place.storage is None:  # nobody else has this folder: what is under way there belongs to no living process
        worker.store.give_up_all()
    if place.ray is not None:
        work_on_ray(worker, goals, place, progress)
    else:
        work_together(worker, goals, place, progress)

"""A search from beginning to end: try the task, make the space, let workers try points, choose, run, report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import OutputError, UsageError
from compressor.pipeline import fingerprints
from compressor.pipeline.environment import find_device
from compressor.progress import Progress, Silent
from compressor.report import Fingerprints
from compressor.studies.search import files, outcome_report
from compressor.studies.search.bounds import refuse_impossible
from compressor.studies.search.building import Decisions, build
from compressor.studies.search.clock import Clock
from compressor.studies.search.evaluation import Evaluator
from compressor.studies.search.final import final_run
from compressor.studies.search.folder import SearchFolder
from compressor.studies.search.prediction import weight_bytes
from compressor.studies.search.storage import Store
from compressor.studies.search.subject import Subject
from compressor.studies.search.telling import Teller
from compressor.studies.search.worker import Worker
from compressor.task.loading import load

if TYPE_CHECKING:
    from compressor.report import SearchReport
    from compressor.studies.search.final import Final
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place

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
        chosen: Final | None = None
        interrupted = False
        try:
            view = worker.work()
            chosen = final_run(worker, view, place, progress)
        except KeyboardInterrupt:
            interrupted = True
        return outcome_report.write(worker, place, chosen, interrupted=interrupted)


def prepare(
    goals: Goals, place: Place, *, progress: Progress = _SILENT, name: str = "", shared: bool = False
) -> Worker:
    """One worker of a study, which it opens or begins.

    Args:
        goals: What is asked for.
        place: Task, folder and storage.
        progress: Told what goes on.
        name: Of this worker, if there are several.
        shared: Whether there may be others though the storage is a file.

    Raises:
        CompressorError: The task, the goals or the storage are not right.
    """
    task = load(place.task)
    subject = Subject(task, find_device(place.device), goals.seed, progress)
    subject.check()
    several = shared or place.storage is not None
    store = Store(place.url, goals.name, place.out, shared=several)
    facts = store.facts()
    _refuse_other_study(facts, goals, fingerprints.fingerprints(task, subject.model, subject.real), place.task)
    decided: Decisions = dict(facts.get("decided", {}))
    space = build(goals, subject, decided)
    if "original" not in facts:
        progress.say("exporting the original")
        facts["original"] = _original(goals, subject)
    evaluator = Evaluator(subject, space)
    graph = facts["original"]["bytes"] - facts["original"]["weight_bytes"]
    if "goals" not in facts:
        refuse_impossible(evaluator, graph)
        store.note("decided", decided)
        store.note("original", facts["original"])
        print_of = fingerprints.fingerprints(task, subject.model, subject.real)
        store.note("fingerprints", print_of.model_dump(mode="json"))
        store.note("goals", {"key": goals.key()})
    saved = store.save_pending()
    if saved:
        progress.say(f"{saved} results of an earlier worker, which the storage could not take then, are saved")
    records = store.records()
    spent = sum(record.outcome.seconds for record in records if record.outcome)
    clock = Clock(goals.seconds, spent=spent, final=2 * facts["original"]["seconds"])
    return Worker(store, space, evaluator, clock, graph, name=name, told=Teller(goals, clock, progress).told)


def _original(goals: Goals, subject: Subject) -> dict[str, Any]:
    """Bytes of the original's file, and its latency if that counts."""
    started = time.perf_counter()
    with torch.random.fork_rng():
        written = files.write(subject, subject.state(), goals.exports[0].unrounded(), timed=goals.times_files)
    return {
        "bytes": written.bytes,
        "weight_bytes": weight_bytes(subject.model, "float32"),
        "latency_ms": written.latency_ms,
        "seconds": time.perf_counter() - started,
    }


def _refuse_other_study(facts: dict[str, Any], goals: Goals, now: Fingerprints, task: str) -> None:
    """Raise if a study of this name has other goals, or was made of another model, other data or versions."""
    if not facts.get("goals"):
        return
    if facts["goals"]["key"] != goals.key():
        raise UsageError(
            f"the storage holds a study `{goals.name}` for other goals",
            hint="give this one another name with --name; only time and trials may change",
        )
    changed = fingerprints.changes(Fingerprints.model_validate(facts["fingerprints"]), now, task.partition(":")[0])
    if changed:
        raise OutputError(
            f"the study cannot go on: {'; '.join(changed)}", hint="choose another --out: earlier results do not hold"
        )

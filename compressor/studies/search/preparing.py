"""Makes a worker: the task is tried, the study opened or begun, the space built."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from compressor.errors import OutputError, UsageError
from compressor.measure import size
from compressor.pipeline import fingerprints
from compressor.pipeline.environment import find_device
from compressor.progress import Progress, Silent
from compressor.studies.search import files
from compressor.studies.search.bounds import refuse_impossible, refuse_needless
from compressor.studies.search.building import build
from compressor.studies.search.clock import Clock
from compressor.studies.search.evaluation import Evaluator
from compressor.studies.search.on_board import OnBoard
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.storage import Store
from compressor.studies.search.stored import weight_bytes
from compressor.studies.search.study_facts import OriginalFile, StudyFacts, damaged_study
from compressor.studies.search.subject import Subject
from compressor.studies.search.telling import Teller
from compressor.studies.search.worker import Worker
from compressor.task.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.report import Fingerprints
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place
    from compressor.studies.search.records import Record
    from compressor.studies.search.space import Space

_SILENT = Silent()


def prepare(
    goals: Goals,
    place: Place,
    *,
    progress: Progress = _SILENT,
    name: str = "",
    now: Callable[[], float] = time.monotonic,
) -> Worker:
    """One worker of a study, which it opens or begins. What this takes counts for the time limit.

    Args:
        goals: What is asked for.
        place: Task, folder and storage.
        progress: Told what goes on.
        name: Of this worker, if there are several.
        now: The clock of the time limit, in seconds.

    Raises:
        CompressorError: The task, the goals or the storage are not right.
    """
    started = now()
    task = load(place.task)
    subject = Subject(task, find_device(place.device), goals.seed, progress, now)
    subject.check()
    store = Store(place.url, goals.name, place.out, shared=place.is_shared)
    facts = StudyFacts.of(store.facts())
    _refuse_other_study(facts, goals, fingerprints.fingerprints(task, subject.model, subject.real), place.task)
    decided = facts.decided.model_copy(deep=True)
    space = build(goals, subject, decided)
    if not all(space.holds(point) for point in space.first):
        raise damaged_study("the points that it starts with")
    known = facts.original
    if known is None:
        progress.say("exporting the original")
        known = _original(goals, subject)
    evaluator = Evaluator(subject, space)
    evaluator.largest = known.bytes
    rest = 0.0
    if goals.times_files and known.latency_ms is not None:
        rest = max(0.0, known.latency_ms - evaluator.table.of_model(subject.model, subject.task))
    graphs = Graphs(known.bytes - known.weight_bytes, rest, board=OnBoard.of(known))
    if facts.goals is None:
        refuse_needless(goals, known)
        refuse_impossible(evaluator, graphs.original)
        store.note("decided", decided.model_dump(mode="json"))
        store.note("original", known.model_dump(mode="json"))
        print_of = fingerprints.fingerprints(task, subject.model, subject.real)
        store.note("fingerprints", print_of.model_dump(mode="json"))
        store.note("goals", {"key": goals.key()})
    saved = store.save_pending()
    if saved:
        progress.say(f"{saved} results of an earlier worker, which the storage could not take then, are saved")
    records = store.records()
    _refuse_other_points(space, records)
    spent = sum(record.outcome.seconds for record in records if record.outcome)
    clock = Clock(goals.seconds, spent=spent / place.jobs, final=2 * known.seconds, now=now, started=started)
    teller = Teller(goals, clock, progress)
    return Worker(store, space, evaluator, clock, graphs, known, name=name, told=teller.told, telling=teller.bar)


def _original(goals: Goals, subject: Subject) -> OriginalFile:
    """Bytes of the original's file, its latency if that counts, and how long a run takes beside its steps."""
    started, options, milliseconds = subject.now(), goals.exports[0].unrounded(), None
    with torch.random.fork_rng():
        if goals.times_files:
            written = files.write(subject, subject.compressed(), options, timed=True)
            taken, milliseconds = written.taken, written.latency_ms
        else:
            taken = files.taken_by(subject, subject.compressed(), options)
    evaluated = 0.0 if goals.times_files else subject.seconds * (2 if subject.validates else 1)
    return OriginalFile(
        bytes=taken.bytes,
        weight_bytes=weight_bytes(subject.model, {}, "float32"),
        latency_ms=milliseconds,
        flash_bytes=taken.flash_bytes,
        ram_bytes=taken.ram_bytes,
        parameters=size.count(subject.model)[0],
        seconds=max(0.0, subject.now() - started + evaluated),
    )


def _refuse_other_study(facts: StudyFacts, goals: Goals, now: Fingerprints, task: str) -> None:
    """Raise if a study of this name has other goals, or was made of another model, other data or versions."""
    if facts.goals is None or facts.fingerprints is None:
        return
    if facts.goals.key != goals.key():
        raise UsageError(
            f"the storage holds a study `{goals.name}` for other goals",
            hint="give this one another name with --name; only time and trials may change",
        )
    changed = fingerprints.changes(facts.fingerprints, now, task.partition(":")[0])
    if changed:
        raise OutputError(
            f"the study cannot go on: {'; '.join(changed)}", hint="choose another --out: earlier results do not hold"
        )


def _refuse_other_points(space: Space, records: Sequence[Record]) -> None:
    """Raise if a trial is none of this space: its recipe could not be made."""
    numbers = {record.number for record in records}
    for record in records:
        if record.point_number not in numbers or not space.holds(record.point):
            raise damaged_study(f"trial {record.number}")

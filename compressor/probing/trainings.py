"""Runs the trainings of a probe, in several processes, and keeps their results in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import torch

from compressor.errors import CompressorError
from compressor.files import cache_folder, write_whole, writing
from compressor.probing.training import Effort, Trained, train
from compressor.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from compressor.probing.architecture import Architecture
    from compressor.probing.tasks import ProbeTask
    from compressor.progress import Bar

LONGER: Final = 2
"""The longer length is this many times that of training."""


@dataclass(frozen=True)
class Training:
    """One training."""

    architecture: Architecture
    task: ProbeTask
    effort: Effort
    seed: int

    def run(self) -> Trained:
        """Carry it out."""
        return train(self.architecture, self.task, LONGER * self.task.length, self.effort, self.seed)

    def key(self) -> str:
        """Hash of all that the result depends on, the versions of the tool and of PyTorch among it."""
        facts = [VERSION, torch.__version__, self.architecture.facts(), self.task.facts(), LONGER]
        text = json.dumps([*facts, self.effort.facts(), self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def run_trainings(wanted: Sequence[Training], jobs: int, cache: bool, bar: Bar) -> dict[Training, Trained]:
    """Every training's result, from the cache or by training; two equal ones are trained once."""
    done: dict[Training, Trained] = {}
    missing = []
    for job in dict.fromkeys(wanted):
        known = _read(job) if cache else None
        if known is None:
            missing.append(job)
        else:
            done[job] = known
    bar.advance(len(wanted) - len(missing))
    for job, trained in _carried_out(missing, jobs):
        done[job] = trained
        if cache:
            _keep(job, trained)
        bar.advance(1, f"{job.architecture.label}, {job.task.name}: {trained.accuracy:.2f}")
    return done


def _carried_out(missing: Sequence[Training], jobs: int) -> Iterator[tuple[Training, Trained]]:
    """The trainings and their results, as they finish."""
    if jobs == 1 or len(missing) < 2:
        for job in missing:
            yield job, job.run()
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(missing)), mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        waiting = {pool.submit(job.run): job for job in missing}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _file(job: Training) -> Path:
    return cache_folder() / "probe" / f"{job.key()}.json"


def _read(job: Training) -> Trained | None:
    """A kept result; None if none can be read."""
    try:
        return Trained(**json.loads(_file(job).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _keep(job: Training, trained: Trained) -> None:
    """Keep a result for the next time, if the folder can be written; nothing depends on it."""
    path = _file(job)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(trained)).encode())
    except CompressorError:
        return

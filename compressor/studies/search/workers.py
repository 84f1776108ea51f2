"""Several workers of one study: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import CompressorError
from compressor.progress import Silent
from compressor.studies.ray_cluster import LOCAL, cluster
from compressor.studies.search.preparing import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from compressor.progress import Progress
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place
    from compressor.studies.search.worker import Worker

_POLL = 1.0
"""Seconds between two looks at the study."""


def work_together(worker: Worker, goals: Goals, place: Place, progress: Progress) -> None:
    """Let several processes work on the study of `worker`, which tells what they find; all of them end with the block.

    Raises:
        CompressorError: A worker failed; the others are stopped.
    """
    spawn = multiprocessing.get_context("spawn")
    failures = spawn.SimpleQueue()
    processes = [
        spawn.Process(target=_worker, args=(goals, place, f"{number}", failures), daemon=True)
        for number in range(place.jobs)
    ]
    for process in processes:
        process.start()
    try:
        _watch(worker, processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    if not failures.empty():
        message, hint = failures.get()
        raise CompressorError(message, hint=hint)
    dead = [process.exitcode for process in processes if process.exitcode not in (0, -15)]
    if len(dead) == len(processes):
        raise CompressorError(
            f"every worker ended with exit code {dead[0]}", hint="the same command goes on; --jobs 1 shows what happens"
        )
    if dead:
        progress.say(f"{len(dead)} of {len(processes)} workers ended early; what they were at was done by the others")


def _watch(worker: Worker, processes: Sequence[BaseProcess]) -> None:
    """Tell what is found until no process is left."""
    while any(process.is_alive() for process in processes):
        time.sleep(_POLL)
        worker.told(worker.view(), None)


def _worker(goals: Goals, place: Place, name: str, failures: Any) -> None:
    """One worker in a process of its own."""
    torch.set_num_threads(1)
    try:
        prepare(goals, place, progress=Silent(), name=name).work()
    except CompressorError as error:
        failures.put((error.message, error.hint))
    except KeyboardInterrupt:
        pass


def work_on_ray(worker: Worker, goals: Goals, place: Place, progress: Progress) -> None:
    """Let several tasks of a Ray cluster work on the study, each with one processor.

    Every machine of it needs this package, the task's file and data, the folder or the storage at the same addresses.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
        CompressorError: A worker failed.
    """
    there = place.everywhere()
    with cluster(place.ray or LOCAL, place.jobs) as ray:
        progress.say(f"{place.jobs} workers on the Ray cluster at {place.ray or LOCAL}")
        remote = ray.remote(num_cpus=1, max_retries=-1)(_on_ray)
        waiting = [remote.remote(goals, there, f"ray {number}") for number in range(place.jobs)]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=_POLL)
            worker.told(worker.view(), None)
            for failure in ray.get(done):
                if failure is not None:
                    raise CompressorError(failure[0], hint=failure[1])


def _on_ray(goals: Goals, place: Place, name: str) -> tuple[str, str | None] | None:
    """What went wrong in a worker, if something did; errors of ours do not survive pickling with their parts."""
    torch.set_num_threads(1)
    try:
        prepare(goals, place, progress=Silent(), name=name).work()
    except CompressorError as error:
        return error.message, error.hint
    return None

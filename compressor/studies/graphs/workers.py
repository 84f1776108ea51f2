"""The trainings of a study in this process, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compressor.probing.training import one_thread
from compressor.studies.graphs.training import train
from compressor.studies.ray_cluster import cluster
from compressor.task.spec import split_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.studies.graphs.facts import Kind, Row, Study


def rows(options: Study, missing: Sequence[tuple[Kind, int]], jobs: int) -> Iterator[Row]:
    """The missing rows as they get done."""
    if jobs == 1 or len(missing) < 2:
        with one_thread():
            for kind, index in missing:
                yield train(options, kind, index)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(missing)), mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        for future in as_completed([pool.submit(train, options, kind, index) for kind, index in missing]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def rows_on_ray(options: Study, missing: Sequence[tuple[Kind, int]], jobs: int, address: str) -> Iterator[Row]:
    """The missing rows as the machines of a Ray cluster get them done."""
    if not missing:
        return
    with cluster(address, jobs) as ray:
        there = options.model_copy(update={"task": _absolute(options.task)})
        remote = ray.remote(num_cpus=1)(_train_on_one_thread)
        waiting = [remote.remote(there, kind, index) for kind, index in missing]
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from error


def _train_on_one_thread(options: Study, kind: Kind, index: int) -> Row:
    """`train` in a process of its own."""
    torch.set_num_threads(1)
    return train(options, kind, index)


def _absolute(spec: str) -> str:
    """A task's `FILE.py` or `FILE.py:NAME` that means the same in another working directory."""
    file, name = split_spec(spec)
    return f"{Path(file).resolve()}:{name}" if name else str(Path(file).resolve())

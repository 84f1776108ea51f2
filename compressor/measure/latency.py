"""Latency of exported files, interleaved so that all meet the same machine.

ONNX Runtime runs in this process, other runtimes each in one of its own, where a burst is timed, not the way to it.

Every round loads all the files afresh, in a new random order, and times one burst of runs of each. What differs
from load to load (where the weights lie in memory) and from minute to minute (clock frequency, other programs) so
becomes part of the noise between rounds, which the interval covers, instead of a lasting advantage of one file.
"""

from __future__ import annotations

import gc
import math
import random
import statistics as stdlib_statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import UsageError
from compressor.measure.statistics import fewest_for_median, speed_up
from compressor.progress import Progress, Silent
from compressor.report import Latency, SpeedUp
from compressor.runtimes.runtime_file import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from compressor.runtimes.onnx_runtime import ModelFile

CONFIDENCE = 0.95
FEWEST_ROUNDS = fewest_for_median(CONFIDENCE)
WARMUP_RUNS = 3
MAX_SECONDS = 60.0
_KEPT_SAMPLES = 200
_QUANTILES = (0.1, 0.5, 0.9)
_SILENT = Silent()


@dataclass(frozen=True)
class Plan:
    """How much is timed: `rounds` bursts of each file, each of `warmup` untimed and `runs` timed runs."""

    rounds: int
    runs: int
    warmup: int


def plan(*, load_seconds: float, run_seconds: float, rounds: int, runs: int, max_seconds: float) -> Plan:
    """Fit the wish for `rounds` x `runs` into `max_seconds`.

    A round costs load_seconds + (warmup + runs) * run_seconds, each summed over the files. First rounds are given
    up, then runs; `FEWEST_ROUNDS` of one warm-up and one run are timed even if they take longer.
    """
    warmup = WARMUP_RUNS

    def affordable(runs: int, warmup: int) -> int:
        return int(max_seconds / max(load_seconds + (warmup + runs) * run_seconds, 1e-9))

    while affordable(runs, warmup) < FEWEST_ROUNDS and runs > 1:
        runs, warmup = max(1, runs // 2), 1
    return Plan(min(rounds, max(FEWEST_ROUNDS, affordable(runs, warmup))), runs, warmup)


def compare(
    paths: Sequence[Path],
    inputs: Sequence[Sequence[Tensor]],
    *,
    baselines: Sequence[int] = (),
    batch: int,
    length: int,
    threads: int = 1,
    rounds: int = 40,
    runs: int = 10,
    max_seconds: float = MAX_SECONDS,
    seed: int = 0,
    progress: Progress = _SILENT,
) -> tuple[list[Latency], list[SpeedUp]]:
    """Latency of each file on its `inputs`, and how much faster than its baseline each other one is.

    Args:
        paths: exported files of any format.
        inputs: what each of them is run on (the same, but for the sizes of states).
        baselines: for each file the index of its baseline, which has its own; by default the first is that of all.
        batch: batch size of `inputs`, for the record.
        length: length of `inputs`, for the record.
        threads: of the runtime inside one operator.
        rounds: bursts of each file, at least `FEWEST_ROUNDS`.
        runs: timed runs in a burst.
        max_seconds: rough limit for the whole comparison; see `plan`.
        seed: of the order of the files.
        progress: told of each round.

    Returns:
        One `Latency` for each file (quantiles over all its timed runs, in ms) and one `SpeedUp` for each that is not a
        baseline (see `statistics.speed_up`).
    """
    _check(paths, rounds, runs)
    files: list[ModelFile] = []
    try:
        for path in paths:
            files.append(open_file(path, threads))
        load_seconds, run_seconds = _rehearse(files, inputs)
        chosen = plan(
            load_seconds=load_seconds, run_seconds=run_seconds, rounds=rounds, runs=runs, max_seconds=max_seconds
        )
        order = random.Random(seed)
        bursts: list[list[list[float]]] = [[] for _ in paths]
        with progress.bar("measuring latency", total=chosen.rounds) as bar, _no_garbage_collection():
            for _ in range(chosen.rounds):
                for index, burst in _round(files, inputs, chosen, order):
                    bursts[index].append(burst)
                bar.advance()
    finally:
        for file in files:
            file.close()
    latencies = [
        summary(timed, warmup=chosen.warmup, batch=batch, length=length, threads=threads, runtime=file.runtime)
        for file, timed in zip(files, bursts, strict=True)
    ]
    medians = [[stdlib_statistics.median(burst) for burst in timed] for timed in bursts]
    pairs = [(index, own) for own, index in enumerate(baselines or [0] * len(paths)) if own != index]
    return latencies, [speed_up(medians[index], medians[own], confidence=CONFIDENCE) for index, own in pairs]


def _check(paths: Sequence[Path], rounds: int, runs: int) -> None:
    if not paths:
        raise UsageError("no file to time", hint="give one ONNX file or more")
    if rounds < FEWEST_ROUNDS:
        raise UsageError(
            f"rounds is {rounds}", hint=f"an interval of {CONFIDENCE:.0%} needs {FEWEST_ROUNDS} rounds or more"
        )
    if runs < 1:
        raise UsageError(f"runs is {runs}", hint="time at least one run a round")


def _rehearse(files: Sequence[ModelFile], inputs: Sequence[Sequence[Tensor]]) -> tuple[float, float]:
    """Seconds to load all files once and to run each once, after a first run that pays for lazy set-up."""
    load_seconds = run_seconds = 0.0
    for file, own in zip(files, inputs, strict=True):
        start = time.perf_counter()
        file.reload()
        load_seconds += time.perf_counter() - start
        run_seconds += min(file.burst(file.feed(own), runs=2, warmup=0)) / 1e3
    return load_seconds, run_seconds


def _round(
    files: Sequence[ModelFile], inputs: Sequence[Sequence[Tensor]], chosen: Plan, order: random.Random
) -> Iterator[tuple[int, list[float]]]:
    """One burst of every file, as (index of the file, ms of each run); loaded and timed in one new random order."""
    indices = order.sample(range(len(files)), len(files))
    for index in indices:
        files[index].reload()
    for index in indices:
        file = files[index]
        yield index, file.burst(file.feed(inputs[index]), runs=chosen.runs, warmup=chosen.warmup)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's cycle collector from landing inside a timed run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def summary(
    bursts: Sequence[Sequence[float]], *, warmup: int, batch: int, length: int, threads: int, runtime: str
) -> Latency:
    """Quantiles over all runs (ms) of all bursts of a file, with the conditions."""
    timed = np.array(bursts).ravel()
    p10, p50, p90 = (float(value) for value in np.quantile(timed, _QUANTILES))
    return Latency(
        p10=p10,
        p50=p50,
        p90=p90,
        runs=len(timed),
        warmup=warmup,
        batch=batch,
        length=length,
        threads=threads,
        runtime=runtime,
        samples=_thin(sorted(timed.tolist())),
    )


def _thin(ordered: list[float]) -> tuple[float, ...]:
    """At most `_KEPT_SAMPLES` of the sorted timings, evenly spaced by rank, so that the distribution stays."""
    step = math.ceil(len(ordered) / _KEPT_SAMPLES)
    return tuple(round(value, 6) for value in ordered[step // 2 :: step])

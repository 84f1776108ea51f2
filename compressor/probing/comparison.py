"""What an architecture that takes the place of another can no longer learn.

A conversion (`Method.conversions`) puts another kind of layer in the place of one: the weights may carry over, what a
layer can do at all may not. Both architectures are built small, trained alike on synthetic tasks from several seeds,
and compared. That is no test of the user's model: it says which abilities to look for in the data.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import torch

from compressor import __version__
from compressor.errors import CompressorError
from compressor.files import cache_folder, write_whole, writing
from compressor.measure.statistics import difference_interval, mean_interval
from compressor.probing.tasks import AssociativeRecall, LongGap, ProbeTask, StateTracking
from compressor.probing.training import Effort, Trained, train
from compressor.progress import Silent
from compressor.report import Drop, Probe, ProbeFile, ProbeLength, ProbeResult, ProbeScore, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from compressor.probing.architecture import Architecture, Conversion
    from compressor.progress import Bar, Progress
    from compressor.report import Verdict

MARGIN: Final = 0.05
"""A difference in accuracy below this does not count."""
LEARNED: Final = 0.2
"""A side has learned something where its accuracy is at least this part of the way from chance to 1."""
LONGER: Final = 2
"""The longer length is this many times that of training."""

Budget = Literal["rehearsal", "standard", "thorough"]


@dataclass(frozen=True)
class Plan:
    """What is trained: everything on which a result depends, beside the architectures."""

    tasks: tuple[ProbeTask, ...] = (AssociativeRecall(), StateTracking(), LongGap())
    effort: Effort = field(default_factory=Effort)
    seeds: int = 3
    first_seed: int = 0
    easier: bool = True
    """Repeat a task that neither side learns in its easier form, where it has one."""


PLANS: Final[Mapping[Budget, Plan]] = {
    "rehearsal": Plan(effort=Effort(steps=10, scored=64), seeds=1, easier=False),
    "standard": Plan(),
    "thorough": Plan(
        tasks=(AssociativeRecall(length=24), StateTracking(length=32), LongGap(length=64)),
        effort=Effort(width=64, steps=3000, lr=3e-3),
        seeds=5,
    ),
}


@dataclass(frozen=True)
class Job:
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
        facts = [__version__, torch.__version__, self.architecture.facts(), self.task.facts(), LONGER]
        text = json.dumps([*facts, self.effort.facts(), self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def compare(
    conversion: Conversion,
    plan: Plan,
    *,
    jobs: int = 1,
    cache: bool = True,
    progress: Progress | None = None,
) -> Probe:
    """Train both architectures of a conversion alike on the tasks of a plan, and compare what they learned.

    Args:
        conversion: What takes the place of what.
        plan: The tasks, how networks are trained, and the seeds.
        jobs: Processes. The result does not depend on it; more than one needs a program whose main module can be
            imported (`if __name__ == "__main__"`).
        cache: Read trainings that were done before from the user's cache folder, and keep new ones there.
        progress: Where progress is told.
    """
    started = time.perf_counter()
    pair = conversion.scaled(plan.effort.width)
    tell = progress or Silent()
    results = _results(pair, plan, plan.tasks, jobs, cache, tell)
    unlearned = [
        easier
        for task, result in zip(plan.tasks, results, strict=True)
        if plan.easier and result.trained.verdict == "neither" and (easier := task.easier()) is not None
    ]
    if unlearned:
        results += _results(pair, plan, unlearned, jobs, cache, tell)
    return Probe(
        modules=conversion.modules,
        original=pair.original.label,
        converted=pair.converted.label,
        original_size=pair.original.size,
        converted_size=pair.converted.size,
        results=tuple(results),
        seeds=plan.seeds,
        first_seed=plan.first_seed,
        effort=plan.effort.facts(),
        margin=MARGIN,
        learned=LEARNED,
        seconds=time.perf_counter() - started,
    )


def file(probes: Sequence[Probe]) -> ProbeFile:
    """What is written about probes."""
    return ProbeFile(
        version=__version__, measured_at=datetime.now(UTC).isoformat(timespec="seconds"), probes=tuple(probes)
    )


def unwanted(conversions: Sequence[Conversion]) -> tuple[Skip, ...]:
    """Every layer of conversions that are not probed because nobody wants it."""
    names = [name for conversion in conversions for name in conversion.modules]
    return tuple(Skip(name=name, reason="it was not wanted (`--no-probe`)") for name in names)


def judge(original: Sequence[float], converted: Sequence[float], chance: float, drop: Drop) -> Verdict:
    """What the accuracies of two sides, one a seed, say of an ability.

    `neither` where both stay near chance; else `kept`, `lost` or `gained` where the whole interval of the difference is
    below the margin, above it, or below minus it; and `undecided` where it is not, or where one seed has no interval.
    """
    means = [sum(side) / len(side) for side in (original, converted)]
    if all(mean < chance + LEARNED * (1 - chance) for mean in means):
        return "neither"
    if drop.interval is None:
        return "undecided"
    if drop.interval.low > MARGIN:
        return "lost"
    if drop.interval.high < -MARGIN:
        return "gained"
    return "kept" if drop.interval.high <= MARGIN else "undecided"


def _results(
    pair: Conversion, plan: Plan, tasks: Sequence[ProbeTask], jobs: int, cache: bool, progress: Progress
) -> list[ProbeResult]:
    seeds = range(plan.first_seed, plan.first_seed + plan.seeds)
    sides = (pair.original, pair.converted)
    wanted = [Job(side, task, plan.effort, seed) for task in tasks for seed in seeds for side in sides]
    with progress.bar("probing", len(wanted)) as bar:
        done = _run(wanted, jobs, cache, bar)
    return [
        _result(task, *([done[Job(side, task, plan.effort, seed)] for seed in seeds] for side in sides))
        for task in tasks
    ]


def _result(task: ProbeTask, original: Sequence[Trained], converted: Sequence[Trained]) -> ProbeResult:
    lengths = []
    for length, name in ((task.length, "accuracy"), (LONGER * task.length, "longer")):
        first, second = ([getattr(run, name) for run in side] for side in (original, converted))
        drop = Drop(
            value=sum(first) / len(first) - sum(second) / len(second), interval=difference_interval(first, second)
        )
        chance = task.chance(length)
        lengths.append(
            ProbeLength(
                length=length,
                chance=chance,
                original=_score(first),
                converted=_score(second),
                drop=drop,
                verdict=judge(first, second, chance, drop),
            )
        )
    return ProbeResult(
        task=task.name,
        difficulty=task.difficulty,
        needs=task.needs,
        meaning=task.meaning,
        patience=task.patience,
        trained=lengths[0],
        longer=lengths[1],
        steps_original=tuple(run.steps for run in original),
        steps_converted=tuple(run.steps for run in converted),
        parameters_original=original[0].parameters,
        parameters_converted=converted[0].parameters,
    )


def _score(accuracies: Sequence[float]) -> ProbeScore:
    return ProbeScore(
        accuracies=tuple(accuracies), mean=sum(accuracies) / len(accuracies), interval=mean_interval(accuracies)
    )


def _run(wanted: Sequence[Job], jobs: int, cache: bool, bar: Bar) -> dict[Job, Trained]:
    """Every job's result, from the cache or by training; two equal jobs are trained once."""
    done: dict[Job, Trained] = {}
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


def _carried_out(missing: Sequence[Job], jobs: int) -> Iterator[tuple[Job, Trained]]:
    """The jobs and their results, as they get done."""
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


def _file(job: Job) -> Path:
    return cache_folder() / "probe" / f"{job.key()}.json"


def _read(job: Job) -> Trained | None:
    """A kept result; None where there is none that can be read."""
    try:
        return Trained(**json.loads(_file(job).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _keep(job: Job, trained: Trained) -> None:
    """Keep a result for the next time, where the folder can be written: it is good without."""
    path = _file(job)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(trained)).encode())
    except CompressorError:
        return

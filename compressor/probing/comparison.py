"""What an architecture that replaces another can no longer learn.

A conversion replaces a layer by one of another kind: the weights may carry over, what a layer can do at all may not.
Both architectures are built small, trained identically on synthetic tasks from several seeds, and compared. That is no
test of the user's model: it says which abilities to look for in the data.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from compressor.measure.statistics import difference_interval, mean_interval
from compressor.probing.trainings import LONGER, Training, run_trainings
from compressor.progress import Silent
from compressor.report import Drop, Probe, ProbeFile, ProbeLength, ProbeResult, ProbeScore, Skip
from compressor.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.probing.architecture import Conversion
    from compressor.probing.plans import Plan
    from compressor.probing.tasks import ProbeTask
    from compressor.probing.training import Trained
    from compressor.progress import Progress
    from compressor.report import Verdict

MARGIN: Final = 0.05
"""A difference in accuracy below this does not count."""
LEARNED: Final = 0.2
"""A side has learned something if its accuracy is at least this part of the way from chance to 1."""


def compare(
    conversion: Conversion,
    plan: Plan,
    *,
    jobs: int = 1,
    cache: bool = True,
    progress: Progress | None = None,
) -> Probe:
    """Train both architectures of a conversion identically on the tasks of a plan, and compare what they learned.

    Args:
        conversion: What replaces what.
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
    return ProbeFile(version=VERSION, measured_at=datetime.now(UTC).isoformat(timespec="seconds"), probes=tuple(probes))


def unwanted(conversions: Sequence[Conversion]) -> tuple[Skip, ...]:
    """Every layer of conversions that are not probed because `--no-probe` was given."""
    names = [name for conversion in conversions for name in conversion.modules]
    return tuple(Skip(name=name, reason="skipped by `--no-probe`") for name in names)


def judge(original: Sequence[float], converted: Sequence[float], chance: float, drop: Drop) -> Verdict:
    """What the accuracies of two sides, one a seed, say of an ability.

    `neither` if both stay near chance; else `kept`, `lost` or `gained` if the whole interval of the difference is below
    the margin, above it, or below minus it; and `undecided` if it is not, or if there is no interval (one seed).
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
    wanted = [Training(side, task, plan.effort, seed) for task in tasks for seed in seeds for side in sides]
    with progress.bar("probing", len(wanted)) as bar:
        done = run_trainings(wanted, jobs, cache, bar)
    return [
        _result(task, *([done[Training(side, task, plan.effort, seed)] for seed in seeds] for side in sides))
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
        **task.described(),
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

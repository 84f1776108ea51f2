"""Carries a finished run out once more, and compares files, metric and ratio with what it gave."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

from compressor.errors import ReportError
from compressor.files import read_text
from compressor.files.staged import REPORT_FILE, settle
from compressor.pipeline.comparing import VIEWS, facts_that_differ, files_that_differ
from compressor.pipeline.environment import environment
from compressor.pipeline.fingerprints import changes
from compressor.pipeline.folder import differences
from compressor.pipeline.run import run
from compressor.progress import Progress, Silent
from compressor.report import RepeatedFile, RepeatedNumber, Report, Reproduction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from compressor.recipe.model import Recipe
    from compressor.report import Conditions, Environment, Interval, Outcome, Score
    from compressor.task.guard import GuardedTask

_SILENT = Silent()


def read(folder: Path) -> tuple[Report, Conditions]:
    """The report of a finished run; raises `ReportError` if there is none, or it does not say what it was given."""
    settle(folder)
    text = read_text(folder / REPORT_FILE, ReportError, hint="give the --out folder of a finished run")
    report = Report.from_json(text)
    if report.conditions is None:
        raise ReportError("the report does not say what its run was given", hint="run the recipe again, then reproduce")
    return report, report.conditions


def reproduce(
    folder: Path, recipe: Recipe, task: GuardedTask, out: Path, *, jobs: int = 1, progress: Progress = _SILENT
) -> Reproduction:
    """Run the recipe of a finished run again with the options that it had, and compare.

    Args:
        folder: Of the finished run; it is not changed.
        recipe: Read from that folder.
        task: The task of the run. A folder does not say where it is: nothing that a folder names is executed.
        out: Folder of the repetition.
        jobs: Processes of probes.
        progress: Told what begins, and first what differs in the environment.

    Raises:
        ReportError: There is no such run, or `recipe` is not its recipe.
        CompressorError: As of a run.
    """
    report, given = read(folder)
    if recipe.sha256() != report.recipe_sha256:
        changed = differences(report.recipe, recipe.resolved())
        raise ReportError(
            f"`{folder / 'recipe.yaml'}` is not the recipe of the report: {'; '.join(changed[:3])}",
            hint="it was changed after the run, or this version of the tool has other options: run the recipe again",
        )
    differing = _machine(report.environment, environment(torch.device(given.device)))
    if given.torch_threads != torch.get_num_threads():
        differing.append(f"PyTorch's threads are {torch.get_num_threads()} and were {given.torch_threads}")
    for line in differing:
        progress.say(f"differs from the run: {line}")
    again = run(
        recipe, task, out, device=given.device, threads=given.threads, quick=given.quick, probes=given.probes,
        jobs=jobs, progress=progress,
    )  # fmt: skip
    assert again.conditions is not None
    differing += changes(given.fingerprints, again.conditions.fingerprints, task.file)
    names = [name for name in report.files if name not in VIEWS]
    told = facts_that_differ(report.model_dump(mode="json"), again.model_dump(mode="json"))
    return Reproduction(
        environment=tuple(dict.fromkeys(differing)),
        files=tuple(RepeatedFile(name=name, same=not files_that_differ(folder, out, [name])) for name in names),
        numbers=tuple(_numbers(report, again)),
        differing=tuple(line for line in told if not line.startswith(("environment.", "conditions."))),
    )


def _machine(before: Environment, after: Environment) -> list[str]:
    names = ("platform", "cpu", "cores", "device")
    return [
        f"{name} is {getattr(after, name)} and was {getattr(before, name)}"
        for name in names
        if getattr(before, name) != getattr(after, name)
    ]


def _numbers(before: Report, after: Report) -> Iterator[RepeatedNumber]:
    """Metric and ratio of every file that both have."""
    every = chain((before.original,), before.elsewhere, before.compressed)
    repeated = {one.artifact.path: one for one in (after.original, *after.elsewhere, *after.compressed)}
    for one in every:
        name = one.artifact.path
        if name in repeated:
            first, second = one.score, repeated[name].score
            yield RepeatedNumber(
                file=name, name="metric", before=first.value, after=second.value, outcome=_of_scores(first, second)
            )
    ratios = {one.artifact.path: ratio for one, ratio in zip(after.compressed, after.speedups, strict=True)}
    for one, ratio in zip(before.compressed, before.speedups, strict=True):
        again = ratios.get(one.artifact.path)
        if ratio is not None and again is not None:
            outcome: Outcome = "within" if _meet(ratio.interval, again.interval) else "other"
            yield RepeatedNumber(
                file=one.artifact.path, name="ratio", before=ratio.ratio, after=again.ratio, outcome=outcome
            )


def _of_scores(before: Score, after: Score) -> Outcome:
    if before.value == after.value:
        return "same"
    interval = before.interval
    return "within" if interval is not None and interval.low <= after.value <= interval.high else "other"


def _meet(first: Interval, second: Interval) -> bool:
    return first.low <= second.high and second.low <= first.high

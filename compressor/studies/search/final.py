"""The chosen recipe as a normal run, with the goals as its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, ReportError
from compressor.pipeline.run import run
from compressor.report import Report
from compressor.studies.search.choosing import candidates
from compressor.studies.search.folder import BEST
from compressor.studies.search.goal_kinds import asked_for

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.progress import Progress
    from compressor.recipe.model import Recipe
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place
    from compressor.studies.search.worker import View, Worker

_MOST = 5
"""Candidates that are run at most."""


@dataclass(frozen=True)
class Final:
    """The run in `best/`."""

    number: int
    """Of the point."""
    report: Report


@dataclass(frozen=True)
class Finals:
    """What running the best as recipes gave."""

    chosen: Final | None
    failed: tuple[str, ...] = ()
    """Why better ones are not chosen, in sentences."""


def limits(goals: Goals) -> dict[str, float]:
    """The goals as limits of a recipe."""
    return {kind.limit: wanted for kind, wanted in asked_for(goals)}


def final_run(worker: Worker, view: View, place: Place, progress: Progress) -> Finals:
    """Run the best candidate; the next one if a limit is missed after all, by noise of the latency for instance."""
    goals = worker.space.goals
    failed: list[str] = []
    points = {trail.number: trail for trail in view.points}
    for estimate in candidates(view, goals).confirmed[:_MOST]:
        recipe = worker.space.recipe(points[estimate.number].point, estimate.number, limits(goals))
        report = _known(place.out / BEST, recipe)
        if report is None:
            progress.say(f"running point {estimate.number} as a recipe, into {place.out / BEST}")
            try:
                report = run(
                    recipe,
                    worker.evaluator.subject.task,
                    place.out / BEST,
                    device=place.device,
                    threads=place.threads,
                    force=True,
                    probes=False,
                    progress=progress,
                )
            except CompressorError as error:
                failed.append(f"Point {estimate.number} does not run as a recipe: {error.message}.")
                progress.say(failed[-1])
                continue
        if report.limits_met:
            return Finals(Final(estimate.number, report), tuple(failed))
        missed = ", ".join(limit.name for limit in report.limits if not limit.met)
        failed.append(f"Point {estimate.number} misses {missed} when it is run again as a recipe.")
        progress.say(f"{failed[-1]} The next one is tried.")
    return Finals(None, tuple(failed))


def _known(folder: Path, recipe: Recipe) -> Report | None:
    """The report of a run of exactly this recipe, if the folder holds one."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    try:
        report = Report.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ReportError):
        return None
    return report if report.recipe_sha256 == recipe.sha256() and not report.quick else None

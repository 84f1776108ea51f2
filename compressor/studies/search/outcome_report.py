"""The report of a search from its records, and the recipes of the frontier."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from compressor.files import write_whole, writing
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.pipeline.environment import environment
from compressor.plain_yaml import dump
from compressor.render import html, markdown
from compressor.render.format import plural
from compressor.report import SearchPoint, SearchReport
from compressor.runtimes import loading
from compressor.studies.search.choosing import best_known, candidates, costs
from compressor.studies.search.final import limits
from compressor.studies.search.folder import BEST, FRONTIER, REPORT
from compressor.studies.search.space import RUNGS
from compressor.studies.search.verdicts import verdict
from compressor.studies.search.within_target import kinds

if TYPE_CHECKING:
    from compressor.studies.search.final import Final, Finals
    from compressor.studies.search.place import Place
    from compressor.studies.search.records import Trail
    from compressor.studies.search.worker import View, Worker


def write(worker: Worker, place: Place, finals: Finals, *, interrupted: bool) -> SearchReport:
    """Write the report and the frontier's recipes into the folder of the search."""
    view = worker.view()
    report = made(worker, view, place, finals, interrupted=interrupted)
    with writing(place.out):
        folder = place.out / FRONTIER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for point in report.frontier:
        trail = next(trail for trail in view.points if trail.number == point.number)
        recipe = worker.space.recipe(trail.point, point.number, limits(worker.space.goals))
        write_whole(folder / f"{point.number}.yaml", dump(recipe.resolved()).encode())
    write_whole(place.out / f"{REPORT}.md", markdown.page(report).encode())
    write_whole(place.out / f"{REPORT}.html", html.page(report).encode())
    write_whole(place.out / f"{REPORT}.json", report.to_json().encode())
    return report


def made(worker: Worker, view: View, place: Place, finals: Finals, *, interrupted: bool) -> SearchReport:
    """The facts of a search."""
    chosen = finals.chosen
    goals, subject, space = worker.space.goals, worker.evaluator.subject, worker.space
    file = worker.original
    front = {estimate.number for estimate in best_known(view, goals)}
    found = candidates(view, goals)
    final = None if chosen is None else chosen.report.compressed[0]
    return SearchReport(
        name=goals.name,
        task=subject.task.name,
        remark=subject.task.remark,
        goals=goals.model_dump(mode="json", exclude_none=True),
        objective=goals.objective,
        function="validate" if subject.validates else "evaluate",
        original=subject.original.score,
        original_bytes=file.bytes,
        original_latency_ms=file.latency_ms,
        noise=subject.noise,
        space=tuple(space.described()),
        left_out=space.left_out,
        points=tuple(_point(worker, view, trail, chosen, on_frontier=trail.number in front) for trail in view.points),
        chosen=None if chosen is None else chosen.number,
        best_bytes=None if chosen is None else sum(part.artifact.bytes for part in chosen.report.compressed),
        best_drop=None if final is None else final.drop,
        passed_over=tuple(estimate.number for estimate in found.passed_over),
        costs=costs(view, goals),
        seconds=sum(record.outcome.seconds for record in view.records if record.outcome),
        trials={
            words: sum(record.rung == rung and record.state == "done" for record in view.records)
            for rung, words in RUNGS.items()
        },
        interrupted=interrupted,
        notes=(*_notes(worker), *finals.failed, *_taken(worker, chosen, place)),
        environment=environment(subject.device),
    )


def _point(worker: Worker, view: View, trail: Trail, chosen: Final | None, *, on_frontier: bool) -> SearchPoint:
    outcome = trail.last
    estimate = None if outcome is None else view.estimate(trail.number)
    known = estimate is not None and not estimate.failed
    return SearchPoint(
        number=trail.number,
        rung=trail.rung or 0,
        origin=trail.origin,
        drop=None if outcome is None else outcome.drop,
        expected_drop=estimate.drop if known and estimate is not None else None,
        bytes=round(estimate.bytes) if known and estimate is not None else None,
        latency_ms=None if outcome is None else outcome.latency_ms,
        parameters=None if outcome is None else outcome.parameters,
        unseen=None if outcome is None else outcome.unseen,
        seconds=sum(record.outcome.seconds for record in trail.records if record.outcome),
        steps=tuple(worker.space.steps(trail.point, 2)),
        precision=trail.precision,
        on_frontier=on_frontier,
        verdict=verdict(view, trail, worker.space.goals, chosen=None if chosen is None else chosen.number),
    )


def _notes(worker: Worker) -> tuple[str, ...]:
    subject, goals = worker.evaluator.subject, worker.space.goals
    notes = list(subject.task.notes)
    if not subject.validates:
        notes.append(
            "The task has no `validate`: the search chose by `evaluate`, so the metric of the chosen file is slightly "
            "optimistic. Give the task a `validate` on other data to know better."
        )
    if subject.noise:
        notes.append(
            f"The metric of one and the same model differs from call to call, by {subject.noise:.3g} in two calls"
            + (
                f": more than the goal of {goals.max_drop:g}, so a drop within it may be chance."
                if goals.max_drop is not None and subject.noise > goals.max_drop
                else "."
            )
        )
    return tuple(notes)


def _taken(worker: Worker, chosen: Final | None, place: Place) -> list[str]:
    """What the target takes of the chosen files, by the table of `compressor check`."""
    name = worker.space.goals.target
    if name is None or chosen is None:
        return []
    target, lines = targets.get(name), []
    for part in chosen.report.compressed:
        found = survey(loading.read(place.out / BEST / part.artifact.path), target)
        rest = "" if not found.refusals else f"; not {', '.join(kinds(found.refusals))}"
        lines.append(
            f"{target.title} takes {found.taken} of {found.nodes} nodes of {part.artifact.path} in "
            f"{plural(found.partitions, 'partition')}, by the table of `compressor check` ({target.source}){rest}."
        )
    return lines

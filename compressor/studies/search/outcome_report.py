"""The report of a search from its records, and the recipes of the frontier."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from compressor.files import write_whole, writing
from compressor.measure import size
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.pipeline.environment import environment
from compressor.plain_yaml import dump
from compressor.render import html, markdown
from compressor.render.format import plural
from compressor.report import KnownFrontier, KnownPoint, KnownRecipe, SearchPoint, SearchReport
from compressor.runtimes import loading
from compressor.studies.search import known
from compressor.studies.search.choosing import by_evaluate, candidates, costs, in_full
from compressor.studies.search.estimates import frontier
from compressor.studies.search.final import limits
from compressor.studies.search.folder import BEST, FRONTIER, REPORT
from compressor.studies.search.space import RUNGS
from compressor.studies.search.verdicts import verdict
from compressor.studies.search.within_target import kinds

if TYPE_CHECKING:
    from compressor.studies.search.final import Final, Finals
    from compressor.studies.search.place import Place
    from compressor.studies.search.records import Trail
    from compressor.studies.search.space import Space
    from compressor.studies.search.worker import View, Worker

_NAMED = ("torch", "onnxruntime")
"""Versions that a frontier names."""


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
    write_whole(place.out / known.FILE, frontier_of(worker, view).to_json().encode())
    return report


def frontier_of(worker: Worker, view: View) -> KnownFrontier:
    """What the search found, for others to start from."""
    goals, subject, space = worker.space.goals, worker.evaluator.subject, worker.space
    made_in = environment(subject.device)
    versions = ", ".join(f"{name} {made_in.versions[name]}" for name in _NAMED if name in made_in.versions)
    trails = {trail.number: trail for trail in view.points}
    return KnownFrontier(
        name=subject.task.name,
        model=subject.task.remark,
        original=subject.original_unseen.score if subject.validates else subject.original.score,
        original_bytes=worker.original.bytes,
        parameters=size.count(subject.model)[0],
        points=tuple(_known(space, trails[estimate.number]) for estimate in frontier(by_evaluate(view, goals), goals)),
        space=tuple(space.described()),
        batches=None if space.retraining is None else (space.retraining.least, space.retraining.most),
        max_drop=goals.max_drop,
        trials=_counts(view),
        seconds=round(sum(record.outcome.seconds for record in view.records if record.outcome), 1),
        conditions=f"seed {goals.seed}; {made_in.cpu}, {subject.device.type}; {versions}",
    )


def _known(space: Space, trail: Trail) -> KnownPoint:
    outcome = trail.outcome(2)
    assert outcome is not None
    assert outcome.bytes is not None
    assert outcome.final_drop is not None
    return KnownPoint(
        number=trail.number,
        bytes=outcome.bytes,
        drop=outcome.final_drop,
        latency_ms=outcome.latency_ms,
        parameters=outcome.parameters,
        recipe=KnownRecipe(steps=tuple(space.steps(trail.point, 2)), exports=(space.entry(trail.point),)),
        knobs=trail.point,
    )


def _counts(view: View) -> dict[str, int]:
    return {
        words: sum(record.rung == rung and record.state == "done" for record in view.records)
        for rung, words in RUNGS.items()
    }


def made(worker: Worker, view: View, place: Place, finals: Finals, *, interrupted: bool) -> SearchReport:
    """The facts of a search."""
    chosen = finals.chosen
    goals, subject, space = worker.space.goals, worker.evaluator.subject, worker.space
    file = worker.original
    front = {estimate.number for estimate in frontier(by_evaluate(view, goals) or in_full(view), goals)}
    number = None if chosen is None else chosen.number
    front |= set() if number is None else {number}
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
        chosen=number,
        best_bytes=None if chosen is None else sum(part.artifact.bytes for part in chosen.report.compressed),
        best_drop=None if final is None else final.drop,
        passed_over=tuple(estimate.number for estimate in found.passed_over),
        costs=costs(view, goals),
        evaluation_seconds=subject.seconds,
        seconds=sum(record.outcome.seconds for record in view.records if record.outcome),
        trials=_counts(view),
        interrupted=interrupted,
        notes=(*_notes(worker), *finals.failed, *_taken(worker, chosen, place)),
        environment=environment(subject.device),
    )


def _point(worker: Worker, view: View, trail: Trail, chosen: Final | None, *, on_frontier: bool) -> SearchPoint:
    outcome = trail.last
    estimate = None if outcome is None or outcome.failed else view.estimate(trail.number)
    return SearchPoint(
        number=trail.number,
        rung=trail.rung or 0,
        origin=trail.origin,
        drop=None if outcome is None else outcome.drop,
        expected_drop=None if estimate is None else estimate.drop,
        bytes=None if estimate is None else round(estimate.bytes),
        latency_ms=None if outcome is None else outcome.latency_ms,
        expected_latency_ms=None if estimate is None else estimate.latency or None,
        flash_bytes=None if outcome is None else outcome.flash_bytes,
        ram_bytes=None if outcome is None else outcome.ram_bytes,
        parameters=None if outcome is None else outcome.parameters,
        unseen=None if outcome is None else outcome.unseen,
        seconds=sum(record.outcome.seconds for record in trail.records if record.outcome),
        steps=tuple(worker.space.steps(trail.point, 2)),
        precision=worker.space.stored(trail.point).described,
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

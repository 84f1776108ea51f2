"""The report of a search, as every view shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import (
    Details,
    Figures,
    Heading,
    Items,
    Links,
    Statement,
    Statements,
    Table,
    Text,
)
from compressor.render.goals import GOALS
from compressor.render.plots import search_frontier
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Drop, GoalCost, SearchPoint, SearchReport

_RUNGS = ("without training", "short training", "in full")
_LOST_SHOWN = 30
"""Most points whose fate a report tells; `report.json` has all."""


def _head(report: SearchReport) -> Iterator[Block]:
    yield Heading(report.name, _verdict(report))
    yield Text(_sentence(report))
    counts = ", ".join(f"{count} {words}" for words, count in report.trials.items())
    facts = (
        f"task {report.task}",
        f"{form.plural(len(report.points), 'point')}: {counts}",
        form.duration(report.seconds),
        form.moment(report.environment.created),
        report.environment.cpu,
    )
    yield Text(" · ".join(facts), muted=True)


def _verdict(report: SearchReport) -> Statement:
    if report.chosen is not None:
        return Statement("good", "all goals met")
    if report.interrupted:
        return Statement("bad", "interrupted")
    return Statement("bad", "no point meets all goals")


def _sentence(report: SearchReport) -> str:
    """The answer in one sentence."""
    original = form.decimal_size(report.original_bytes)
    if report.chosen is not None and report.best_bytes is not None:
        times = form.significant(report.original_bytes / report.best_bytes)
        return (
            f"{form.decimal_size(report.best_bytes)} instead of {original} ({times}x smaller): point {report.chosen}, "
            f"in best/ as a run with its recipe. Change of {report.original.metric}: {_loss(report.best_drop)}."
            f"{_faster(report)}"
        )
    if not report.frontier and not report.interrupted and not any(point.rung == 2 for point in report.points):
        return (
            "The time was over before a recipe was tried in full: an evaluation of the original takes "
            f"{form.duration(report.evaluation_seconds)}, and each recipe needs several. Give more time, or let "
            f"`evaluate` and `validate` take a `limit` of samples. The original has {original}."
        )
    if not report.frontier:
        reason = next((f": point {one.number} is {one.verdict}" for one in report.points if one.rung == 2), "")
        return f"No recipe could be carried out in full{reason}; the original has {original}."
    return f"The frontier below is what comes nearest; the original has {original}. Recipes are in frontier/."


def _faster(report: SearchReport) -> str:
    """What a call of the chosen file took when it was tried, if latency counts."""
    taken = None if report.chosen is None else report.point(report.chosen).latency_ms
    if taken is None or report.original_latency_ms is None:
        return ""
    return f" A call took {form.milliseconds(taken)} instead of {form.milliseconds(report.original_latency_ms)}."


def _loss(drop: Drop | None) -> str:
    """A loss as the change of the metric with its interval: `-0.0054 (95 % interval -0.0162 to 0.0027)`."""
    if drop is None:
        return "an unknown amount"
    interval = drop.interval
    change = f"{-drop.value:+z.4f}"
    return change if interval is None else f"{change} (95 % interval {-interval.high:+z.4f} to {-interval.low:+z.4f})"


def _picture(report: SearchReport) -> Iterator[Block]:
    figure = search_frontier.figure(report)
    if figure is not None:
        yield Figures((figure,))


def _frontier(report: SearchReport) -> Iterator[Block]:
    if not report.frontier:
        return
    rows = [_row(report, point) for point in report.frontier]
    yield Table(
        (
            "point",
            "bytes",
            "loss by evaluate",
            "95 % interval",
            "by validate",
            "latency",
            "flash",
            "RAM",
            "parameters",
            "precision",
            "steps",
            "verdict",
        ),
        tuple(rows),
    ).without_empty_columns()


def _row(report: SearchReport, point: SearchPoint) -> tuple[str, ...]:
    drop = report.final_loss(point)
    seen = point.drop if report.function == "validate" else None
    interval = "" if drop is None or drop.interval is None else f"{drop.interval.low:z.4f} to {drop.interval.high:z.4f}"
    return (
        str(point.number),
        form.count(point.bytes or 0),
        "" if drop is None else f"{drop.value:z.4f}",
        interval,
        "" if seen is None else f"{seen.value:z.4f}",
        _latency(point),
        "" if point.flash_bytes is None else form.count(point.flash_bytes),
        "" if point.ram_bytes is None else form.count(point.ram_bytes),
        "" if point.parameters is None else form.count(point.parameters),
        point.precision or "",
        "; ".join(map(step_words, point.steps)),
        point.verdict,
    )


def _latency(point: SearchPoint) -> str:
    if point.latency_ms is not None:
        return form.milliseconds(point.latency_ms)
    expected = point.expected_latency_ms
    return "" if expected is None else f"{form.milliseconds(expected)} predicted"


def step_words(step: dict[str, object]) -> str:
    """A step in a few words."""
    match step["method"]:
        case "magnitude":
            ratios = step.get("ratios")
            shown = {form.short(ratio) for ratio in ratios.values()} if isinstance(ratios, dict) else set()
            return f"units {', '.join(sorted(shown))} by {step.get('score')}"
        case "heads":
            return f"heads {form.short(step.get('ratio'))}"
        case "low_rank_attention":
            return f"rank to {form.short(step.get('parameters'))}"
        case "retrain":
            length = f"{step.get('epochs')} epochs" if "max_batches" not in step else f"{step['max_batches']} batches"
            rounded = f", in {step['quantize']}" if step.get("quantize") else ""
            return f"{length}, lr {form.short(step.get('lr'))}{rounded}"
    return str(step["method"])


def _goals(report: SearchReport) -> Iterator[Block]:
    """If goals are missed: what each of them costs, which points in full tell."""
    if report.chosen is not None or report.interrupted or not report.costs or not report.frontier:
        return
    yield Statements(tuple(Statement("plain", _cost(report, cost)) for cost in report.costs))


def _cost(report: SearchReport, cost: GoalCost) -> str:
    words = GOALS[cost.name]
    goal = words.amount(cost.goal)
    others = [f"{GOALS[other.name].thing} of at most {GOALS[other.name].amount(other.goal)}" for other in report.costs]
    others = [text for text, other in zip(others, report.costs, strict=True) if other.name != cost.name]
    within = f"with {' and '.join(others)}" if others else "of all points"
    predicted = cost.number is not None and report.point(cost.number).latency_ms is None
    by_table = " of predicted latency" if predicted and any(one.name == "latency" for one in report.costs) else ""
    if cost.reached is None:
        return f"max_{cost.name} {goal}: no point meets the other goals, so this is not what stands in the way"
    reached = words.amount(cost.reached)
    return f"max_{cost.name} {goal}: {within} the {words.least} found is {reached} (point {cost.number}{by_table})"


def _how_sure(report: SearchReport) -> Iterator[Block]:
    statements = tuple(_certainty(report))
    if statements:
        yield Statements(statements)


def _certainty(report: SearchReport) -> Iterator[Statement]:
    if report.function == "validate":
        yield Statement(
            "plain",
            "The search looked at `validate` alone. Frontier and picture are by `evaluate`, which decided nothing "
            "before the end.",
        )
    if report.chosen is not None and report.function == "validate":
        seen = report.point(report.chosen).drop
        yield Statement(
            "plain",
            f"Loss of the chosen point: by `validate` {_interval(seen)}; by `evaluate`, which the search had not seen, "
            f"{_interval(report.best_drop)}.",
        )
    if report.passed_over:
        numbers, tried = ", ".join(map(str, report.passed_over)), len(report.passed_over) + 1
        yield Statement(
            "plain",
            f"Passed over: {numbers} met the goals by `validate` and not by `evaluate`. The figure of the chosen "
            f"point on unseen data is the first of {tried} that held, so it is slightly optimistic.",
        )
    for note in report.notes:
        yield Statement("plain", note)


def _interval(drop: Drop | None) -> str:
    if drop is None:
        return "unknown"
    if drop.interval is None:
        return f"{drop.value:z.4f}"
    return f"{drop.value:z.4f} (95 % interval {drop.interval.low:z.4f} to {drop.interval.high:z.4f})"


def _tried(report: SearchReport) -> Iterator[Block]:
    """What became of the points, those that came furthest first."""
    points = sorted(report.points, key=lambda point: (-point.rung, point.bytes or 0, point.number))
    rows = tuple(
        (
            str(point.number),
            _RUNGS[point.rung],
            "" if point.bytes is None else form.count(point.bytes),
            "" if point.drop is None else f"{point.drop.value:z.4f}",
            _latency(point),
            point.precision or "",
            "; ".join(map(step_words, point.steps)),
            point.verdict,
        )
        for point in points
    )
    header = ("point", "came to", "bytes", f"loss by {report.function}", "latency", "precision", "steps", "verdict")
    yield Table(header, rows[:_LOST_SHOWN]).without_empty_columns()
    if len(rows) > _LOST_SHOWN:
        rest = Table(header, rows[_LOST_SHOWN:]).without_empty_columns()
        yield Details(f"The other {len(rows) - _LOST_SHOWN}", (rest,))


def _files(report: SearchReport) -> tuple[str, ...]:
    best = ("best/report.html", "best/recipe.yaml") if report.chosen is not None else ()
    return (*best, *(f"frontier/{point.number}.yaml" for point in report.frontier), "report.json", "report.md")


def _space(report: SearchReport) -> Iterator[Block]:
    yield Items(report.space)
    if report.left_out:
        yield Text("Left out:")
        yield Items(report.left_out)


SECTIONS: Final[tuple[Section[SearchReport], ...]] = (
    Section("", lambda report: tuple(_head(report))),
    Section("Picture", lambda report: tuple(_picture(report)), frozenset({"html"})),
    Section("Frontier", lambda report: tuple(_frontier(report)), leads=True),
    Section("What goals cost", lambda report: tuple(_goals(report)), leads=True),
    Section("How sure", lambda report: tuple(_how_sure(report))),
    Section("What was tried", lambda report: tuple(_tried(report)), DOCUMENTS),
    Section("Space", lambda report: tuple(_space(report)), DOCUMENTS),
    Section("Files", lambda report: (Links(_files(report)),), DOCUMENTS),
)
"""In the order of every view."""

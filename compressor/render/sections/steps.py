"""What each step of the recipe did: its options, what is left after it, what it touched and left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.render import format as form
from compressor.render.blocks import Details, Figures, Group, Items, Table, Text
from compressor.render.options import without_defaults
from compressor.render.plots import training
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Report, StepReport


def options(step: StepReport) -> str:
    """The options that differ from their defaults, on one line; all of them if the method is not known here."""
    said = without_defaults("method", {"method": step.method, **step.options})
    return ", ".join(f"{name}: {_value(value)}" for name, value in said.items() if name != "method")


def outcome(step: StepReport) -> str:
    """What is left after a step, on one line."""
    said = [form.plural(step.parameters, "parameter")]
    if step.nonzeros != step.parameters:
        said.append(f"{form.count(step.nonzeros)} of them not zero")
    if step.score is not None:
        said.append(f"{step.score.metric} {form.score(step.score)}")
    return ", ".join([*said, f"took {form.seconds(step.seconds)}"])


def changes(step: StepReport) -> Table:
    """What a step touched."""
    rows = tuple(
        (
            change.name,
            change.action,
            form.arrow(form.shape(change.shape_before), form.shape(change.shape_after)) if change.shape_before else "",
            form.arrow(form.count(change.parameters_before), form.count(change.parameters_after)),
            form.arrow(form.count(change.nonzeros_before), form.count(change.nonzeros_after)),
            change.note,
        )
        for change in step.changes
    )
    return Table(("touched", "how", "shape", "parameters", "non-zeros", "note"), rows).without_empty_columns()


def skipped(step: StepReport) -> Table:
    """What a step left alone, and why."""
    return Table(("skipped", "why"), tuple((skip.name, skip.reason) for skip in step.skipped))


def history(step: StepReport) -> Table:
    """One row an epoch or round."""
    keys = tuple(dict.fromkeys(key for row in step.history for key in row))
    rows = tuple(tuple(_value(row[key]) if key in row else "" for key in keys) for row in step.history)
    return Table(keys, rows)


def facts(step: StepReport) -> Table:
    """Numbers about what a step made."""
    return Table(("fact", "value"), tuple((name, _value(value)) for name, value in step.facts.items()))


def _blocks(step: StepReport) -> Iterator[Block]:
    if said := options(step):
        yield Text(said, muted=True)
    yield Text(outcome(step))
    if step.notes:
        yield Items(step.notes)
    if curves := training.figures(step):
        yield Figures(curves)
    for title, table in (
        ("facts", facts(step)),
        ("touched", changes(step)),
        ("skipped", skipped(step)),
        ("rows of history", history(step)),
    ):
        if table.rows:
            yield Details(f"{len(table.rows)} {title}", (table,))


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return str(value)


def _section(report: Report) -> tuple[Block, ...]:
    return tuple(Group(f"{step.index + 1}. {step.method}", tuple(_blocks(step))) for step in report.steps)


STEPS: Section[Report] = Section("Steps", _section, views=DOCUMENTS)

"""What each step of the recipe did: its options, what is left after it, what it touched and left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.render import format as form
from compressor.render.blocks import Details, Group, Items, Table, Text
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Report, StepReport

_MOST_UNFOLDED = 12
"""Rows of a table, at most, that are shown at once."""


def options(step: StepReport) -> str:
    """The options that differ from their defaults, on one line; all of them if the method is not known here."""
    defaults = _defaults(step.method)
    said = {name: _value(value) for name, value in step.options.items() if name != "method"}
    return ", ".join(f"{name}: {value}" for name, value in said.items() if defaults.get(name) != value)


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
    for title, table, unfolded in (
        ("facts", facts(step), False),
        ("touched", changes(step), len(step.changes) <= _MOST_UNFOLDED),
        ("skipped", skipped(step), len(step.skipped) <= _MOST_UNFOLDED),
        ("rows of history", history(step), False),
    ):
        if table.rows:
            yield Details(f"{len(table.rows)} {title}", (table,), unfolded=unfolded)


def _defaults(method: str) -> dict[str, str]:
    """The defaults of a method's options as this page writes them."""
    from compressor.methods import METHODS

    if method not in METHODS:
        return {}
    fields = METHODS[method].model_fields
    return {
        name: _value(field.get_default(call_default_factory=True))
        for name, field in fields.items()
        if not field.is_required()
    }


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


STEPS = Section("Steps", _section, views=DOCUMENTS)

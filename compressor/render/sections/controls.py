"""Each step compared with its controls: other ways to do the same amount, followed by the rest of the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render.blocks import Statement, Table
from compressor.render.section import Section

if TYPE_CHECKING:
    from compressor.report import Report, Score, StepReport


def table(report: Report, step: StepReport) -> Table | None:
    """A step and its controls, right after it and after the last step; None if it has no controls."""
    if not step.beside or step.score is None:
        return None
    last = report.steps[-1].score or step.score
    counts = (form.count(step.parameters), form.count(step.nonzeros))
    rows = [(step.method, form.score(step.score), form.score(last), *counts, "")]
    for control in step.beside:
        scores = [form.score(score) if score else "" for score in (control.score, control.final)]
        counts = (form.count(control.parameters), form.count(control.nonzeros)) if control.score else ("", "")
        rows.append((control.name, scores[0], scores[1], *counts, control.note))
    metric = f"{step.score.metric} in PyTorch"
    header = ("by", f"{metric} after step {step.index + 1}", "after the last step", "parameters", "non-zeros", "note")
    return Table(header, tuple(rows)).without_empty_columns()


def statements(report: Report) -> list[Statement]:
    """For each step with controls, whether it did better than they did."""
    last = report.steps[-1].score if report.steps else None
    return [] if last is None else [said for step in report.steps for said in _compared(step, last)]


def _compared(step: StepReport, last: Score) -> list[Statement]:
    finals = [(control.name, control.final) for control in step.beside if control.final is not None]
    if not finals:
        return []
    sign = 1 if last.higher_is_better else -1
    better = [name for name, final in finals if sign * (final.value - last.value) > 0]
    reached = ", ".join(f"{name} {form.metric(final.value)}" for name, final in finals)
    verdict = f"{' and '.join(better)} did better" if better else "none did better"
    chance = "" if any(_apart(last, final) for _, final in finals) else _CHANCE
    text = f"`{step.method}` reached {form.metric(last.value)} after the last step, its controls {reached}"
    return [Statement("bad" if better else "good", f"{text}: {verdict}{chance}.")]


_CHANCE = "; their 95 % intervals overlap, so this may be chance"


def _apart(first: Score, second: Score) -> bool:
    """True if both have intervals and these do not meet."""
    a, b = first.interval, second.interval
    return a is not None and b is not None and (a.low > b.high or b.low > a.high)


def _section(report: Report) -> tuple[Table, ...]:
    tables = (table(report, step) for step in report.steps)
    return tuple(drawn for drawn in tables if drawn is not None)


CONTROLS: Section[Report] = Section("Controls", _section)

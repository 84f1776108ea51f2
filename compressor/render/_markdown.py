"""`report.md`: the same facts for a reviewer who reads text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compressor.render import probe, view
from compressor.render.blocks import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compressor.render.blocks import Table
    from compressor.report import Artifact, Report, StepReport

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown; text of the user's is escaped."""
    blocks = [f"# {_text(report.name)}"]
    if report.description:
        blocks.append(_text(report.description))
    blocks.append(_list(f"{MARKS[item.tone]} {_text(item.text)}" for item in view.statements(report)))
    blocks += ["## Original and compressed, measured on the exported files", _table(view.comparison(report))]
    blocks += [_text(note) for note in view.footnotes(report)]
    if (table := view.step_by_step(report)) is not None:
        blocks += ["## Step by step", _table(table), _text(view.step_footnote(report))]
    blocks += _optional("## The metric in parts", view.parts(report))
    blocks += _optional("## Limits", view.limits(report))
    if report.steps:
        blocks.append("## Steps")
    for step in report.steps:
        blocks += _step(report, step)
    for index, measurement in enumerate(report.compressed):
        blocks += _artifact(view.label(report, index), measurement.artifact)
    for name, measurement in view.originals(report):
        blocks += _artifact(name, measurement.artifact)
    if report.notes:
        blocks += ["## Notes", _list(_text(note) for note in report.notes)]
    blocks += ["## Environment", _table(view.environment(report))]
    blocks += ["## Resolved recipe", _code(view.recipe(report), "yaml")]
    if report.files:
        blocks += ["## Files of this run", _list(_text(name) for name in report.files)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _step(report: Report, step: StepReport) -> list[str]:
    blocks = [f"### {step.index + 1}. {_text(step.method)}"]
    if options := view.options(step):
        blocks.append(_text(options))
    blocks.append(_text(view.outcome(step)))
    tables = (
        view.beside(report, step),
        view.facts(step),
        view.changes(step),
        view.skipped(step),
        view.history(step),
    )
    blocks += [_table(table) for table in tables if table]
    for probed in step.probes:
        blocks += [
            f"Probed: {_text(probe.title(probed))}",
            _table(probe.table(probed)),
            _text(probe.conditions(probed)),
        ]
    if step.notes:
        blocks.append(_list(_text(note) for note in step.notes))
    return blocks


def _artifact(name: str, artifact: Artifact) -> list[str]:
    states = view.states(artifact)
    blocks = [
        f"## File: {_text(name)}",
        _table(view.artifact_facts(artifact)),
        _table(view.tensors(artifact)),
        *([_table(states)] if states else []),
        f"Agreement with PyTorch: {_text(view.tolerances(artifact))}.",
        _table(view.parity(artifact)),
        _text(view.chained(artifact)),
        *_optional("### Rounded weights", view.quantization(artifact)),
        *(_text(sentence) for sentence in view.rounding(artifact)),
    ]
    return blocks if artifact.step is None else [*blocks, *_artifact(f"{name}, step by step", artifact.step)]


def _optional(title: str, table: Table | None) -> list[str]:
    return [title, _table(table)] if table else []


def _table(table: Table) -> str:
    rule = (
        "|".join(["---"] + ["---:"] * (len(table.header) - 1))
        if _numeric(table)
        else "|".join(["---"] * len(table.header))
    )
    lines = [_row(table.header), f"|{rule}|", *(_row(row) for row in table.rows)]
    return "\n".join(lines)


def _numeric(table: Table) -> bool:
    """Right-align where every cell after the first column starts like a number or is empty."""
    return all(not cell or cell[0].isdigit() for row in table.rows for cell in row[1:])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _code(text: str, language: str) -> str:
    """A fence longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _text(value: str) -> str:
    """`value` on one line, with nothing in it that Markdown or HTML would read as markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))

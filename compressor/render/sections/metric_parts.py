"""The metric's breakdown on each file, such as accuracy per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render import labels
from compressor.render.blocks import Table
from compressor.render.section import Section

if TYPE_CHECKING:
    from compressor.report import Report, Score


def table(report: Report) -> Table:
    """One row a part, one column a file."""
    files = labels.every_file(report)
    parts = dict.fromkeys(part for _, file in files for part in file.score.parts)
    rows = tuple((part, *(_cell(file.score, part) for _, file in files)) for part in parts)
    return Table(("part", *(name for name, _ in files)), rows)


def _cell(score: Score, part: str) -> str:
    return form.metric(score.parts[part]) if part in score.parts else ""


METRIC_PARTS: Section[Report] = Section(
    "The metric in parts", lambda report: (parts,) if (parts := table(report)).rows else (), folded=True
)

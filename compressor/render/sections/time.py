"""Where the time of the run went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Table, Text
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compressor.render.blocks import Block
    from compressor.report import Report, Stage

_NAMED: Final = 3
"""Stages that the line on the terminal names."""


def blocks(report: Report) -> tuple[Block, ...]:
    """One row a stage, and what the columns are."""
    if not report.stages:
        return ()
    whole = _sum(report.stages)
    rows = [
        (
            stage.name,
            form.seconds(stage.seconds),
            form.percent(stage.seconds / whole),
            form.seconds(stage.processor_seconds),
        )
        for stage in report.stages
    ]
    table = Table(("stage", "time", "share", "processor time"), tuple(rows))
    text = f"{form.seconds(whole)} in all. Processor time: of this process, all threads together."
    return table, Text(text, muted=True)


def line(report: Report) -> str:
    """The total and the longest stages, as one line for the terminal; empty if nothing was timed."""
    if not report.stages:
        return ""
    whole = _sum(report.stages)
    longest = sorted(report.stages, key=lambda stage: -stage.seconds)[:_NAMED]
    parts = ", ".join(f"{stage.name} {form.percent(stage.seconds / whole)}" for stage in longest)
    return f"{form.seconds(whole)}: {parts}"


def _sum(stages: Iterable[Stage]) -> float:
    return max(sum(stage.seconds for stage in stages), 1e-9)


TIME: Section[Report] = Section("Where the time went", blocks, views=DOCUMENTS, folded=True)

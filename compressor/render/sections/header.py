"""What was run, and whether it reached what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render.blocks import Heading, Statement, Text
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Report


def _blocks(report: Report) -> Iterator[Block]:
    yield Heading(report.name, verdict(report))
    if report.description:
        yield Text(report.description)
    facts = (f"task {report.task}", f"seed {report.seed}", form.moment(report.environment.created))
    yield Text(" · ".join(facts), muted=True)


def verdict(report: Report) -> Statement:
    """Whether the run counts and its limits are met."""
    missed = sum(not limit.met for limit in report.limits)
    if report.refused:
        return Statement("bad", f"{form.plural(len(report.refused), 'export')} failed")
    if missed:
        return Statement("bad", f"{missed} of {form.plural(len(report.limits), 'limit')} missed")
    if report.quick:
        return Statement("bad", "rehearsal")
    if report.limits:
        return Statement("good", f"{form.plural(len(report.limits), 'limit')} met")
    return Statement("plain", "no limits set")


HEADER: Section[Report] = Section("", lambda report: tuple(_blocks(report)))

"""Every plot about the whole run that a report has data for; drawn for the page alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Figure, Figures
from compressor.render.plots import by_step, latencies
from compressor.render.section import Section

if TYPE_CHECKING:
    from compressor.report import Report


def figures(report: Report) -> tuple[Figure, ...]:
    """All of them; none of a rehearsal, whose numbers do not count."""
    if report.quick:
        return ()
    latency = latencies.figure(report)
    return (*by_step.figures(report), *((latency,) if latency is not None else ()))


FIGURES: Section[Report] = Section(
    "Plots", lambda report: (Figures(drawn),) if (drawn := figures(report)) else (), views=frozenset({"html"})
)

"""Every plot that a report has data for; drawn for the page alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Figure, Figures
from compressor.render.plots import by_step, latencies, layers, training
from compressor.render.section import Section

if TYPE_CHECKING:
    from compressor.report import Report


def figures(report: Report) -> tuple[Figure, ...]:
    """From the whole run to single steps; none of a rehearsal, whose numbers do not count."""
    if report.quick:
        return ()
    every = (
        by_step.figure(report),
        latencies.figure(report),
        layers.figure(report),
        *(training.figure(step) for step in report.steps),
    )
    return tuple(figure for figure in every if figure is not None)


FIGURES = Section(
    "Plots", lambda report: (Figures(drawn),) if (drawn := figures(report)) else (), views=frozenset({"html"})
)

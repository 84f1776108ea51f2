"""The sections of a report, in the order in which every view shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.sections.axes import AXES
from compressor.render.sections.command import COMMAND
from compressor.render.sections.comparison import COMPARISON
from compressor.render.sections.controls import CONTROLS
from compressor.render.sections.environment import ENVIRONMENT
from compressor.render.sections.exported_files import EXPORTED_FILES
from compressor.render.sections.figures import FIGURES
from compressor.render.sections.header import HEADER
from compressor.render.sections.headline import HEADLINE
from compressor.render.sections.layers import LAYERS
from compressor.render.sections.limits import LIMITS
from compressor.render.sections.metric_parts import METRIC_PARTS
from compressor.render.sections.next_steps import NEXT_STEPS
from compressor.render.sections.notes import NOTES
from compressor.render.sections.probes import PROBES
from compressor.render.sections.recipe import RECIPE
from compressor.render.sections.rounding import ROUNDING
from compressor.render.sections.run_files import RUN_FILES
from compressor.render.sections.step_files import STEP_FILES
from compressor.render.sections.steps import STEPS
from compressor.render.sections.summary import SUMMARY
from compressor.render.sections.time import TIME

if TYPE_CHECKING:
    from compressor.render.section import Section
    from compressor.report import Report

SECTIONS: Final[tuple[Section[Report], ...]] = (
    HEADER,
    HEADLINE,
    NEXT_STEPS,
    SUMMARY,
    COMMAND,
    LIMITS,
    COMPARISON,
    LAYERS,
    FIGURES,
    STEP_FILES,
    METRIC_PARTS,
    STEPS,
    CONTROLS,
    PROBES,
    ROUNDING,
    EXPORTED_FILES,
    AXES,
    NOTES,
    TIME,
    ENVIRONMENT,
    RECIPE,
    RUN_FILES,
)

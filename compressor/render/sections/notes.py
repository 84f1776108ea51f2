"""What the run says about its own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Items
from compressor.render.section import Section

if TYPE_CHECKING:
    from compressor.report import Report


NOTES: Section[Report] = Section("Notes", lambda report: (Items(report.notes),) if report.notes else ())

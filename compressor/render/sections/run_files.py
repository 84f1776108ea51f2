"""Every file that the run wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Links
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from compressor.report import Report


RUN_FILES: Section[Report] = Section(
    "Files of this run", lambda report: (Links(report.files),) if report.files else (), views=DOCUMENTS
)

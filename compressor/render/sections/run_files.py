"""Every file that the run wrote."""

from __future__ import annotations

from compressor.render.blocks import Links
from compressor.render.section import DOCUMENTS, Section

RUN_FILES = Section("Files of this run", lambda report: (Links(report.files),) if report.files else (), views=DOCUMENTS)

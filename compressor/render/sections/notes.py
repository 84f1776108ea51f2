"""What the run says about its own numbers."""

from __future__ import annotations

from compressor.render.blocks import Items
from compressor.render.section import Section

NOTES = Section("Notes", lambda report: (Items(report.notes),) if report.notes else ())

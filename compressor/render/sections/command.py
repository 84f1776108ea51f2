"""The command that made the run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from compressor.render.blocks import Code
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from compressor.report import Report


COMMAND: Section[Report] = Section(
    "Command",
    lambda report: (Code(shlex.join(report.command), "sh", command=True),) if report.command else (),
    views=DOCUMENTS,
)

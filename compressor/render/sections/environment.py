"""Where and with what the run was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Table
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from compressor.report import Report


def table(report: Report) -> Table:
    """One row a fact."""
    here = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    return Table(
        ("", ""),
        (
            ("made", here.created),
            ("compressor", here.compressor),
            ("task", report.task),
            ("seed", str(report.seed)),
            ("recipe SHA-256", report.recipe_sha256),
            ("trained on", here.device),
            ("processor", f"{here.cpu}, {here.cores} cores"),
            ("platform", here.platform),
            ("Python", here.python),
            ("versions", versions),
        ),
    )


ENVIRONMENT: Section[Report] = Section("Environment", lambda report: (table(report),), views=DOCUMENTS, folded=True)

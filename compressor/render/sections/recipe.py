"""The recipe as it was carried out, with its defaults filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Code, Details
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from compressor.report import Report


def _blocks(report: Report) -> tuple[Details]:
    from compressor.plain_yaml import dump

    return (Details("recipe.yaml, with every default filled in", (Code(dump(report.recipe).rstrip("\n"), "yaml"),)),)


RECIPE = Section("Resolved recipe", _blocks, views=DOCUMENTS)

"""The recipe: as one would write it, and as it was carried out, with its defaults filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Code, Details
from compressor.render.options import short
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from compressor.render.blocks import Block
    from compressor.report import Report


def _blocks(report: Report) -> tuple[Block, ...]:
    from compressor.plain_yaml import dump

    resolved, written = dump(report.recipe).rstrip("\n"), dump(short(report.recipe)).rstrip("\n")
    folded = Details("recipe.yaml, with every default filled in", (Code(resolved, "yaml"),))
    return (Code(written, "yaml"), folded) if written != resolved else (folded,)


RECIPE: Section[Report] = Section("Recipe", _blocks, views=DOCUMENTS, folded=True)

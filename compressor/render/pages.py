"""Which sections the facts of a command have, the same in every view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from compressor.render import runs, search, sections
from compressor.render.section import shown
from compressor.report import Report, Runs, SearchReport

if TYPE_CHECKING:
    from compressor.render.blocks import Block
    from compressor.render.section import Section, View

Facts = Report | Runs | SearchReport
"""What a page is made of."""


def drawn_in(view: View, facts: Facts) -> list[tuple[Section[Any], tuple[Block, ...]]]:
    """The sections of these facts that `view` has, with their blocks; none of them is empty."""
    match facts:
        case Report():
            return shown(sections.SECTIONS, facts, view)
        case Runs():
            return shown(runs.SECTIONS, facts, view)
        case SearchReport():
            return shown(search.SECTIONS, facts, view)
        case _:
            assert_never(facts)


def title(facts: Facts) -> str:
    """What the page of these facts is called."""
    return runs.title(facts) if isinstance(facts, Runs) else facts.name

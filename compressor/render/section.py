"""What a section of the report is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.render.blocks import Block
    from compressor.report import Report

View = Literal["terminal", "markdown", "html"]
DOCUMENTS: Final[frozenset[View]] = frozenset({"markdown", "html"})
EVERYWHERE: Final[frozenset[View]] = DOCUMENTS | {"terminal"}


@dataclass(frozen=True)
class Section:
    """One part of every view, in the order of `sections.SECTIONS`."""

    title: str
    """Above the blocks; empty for none."""
    blocks: Callable[[Report], Sequence[Block]]
    """What it shows of a report; nothing if the report has nothing for it."""
    views: frozenset[View] = EVERYWHERE
    """Where it is shown."""
    last_on_terminal: bool = False
    """There it comes last: the end of the output is what stays on the screen."""

    @property
    def anchor(self) -> str:
        """The title as the name of a place in the page."""
        return self.title.lower().replace(" ", "-")

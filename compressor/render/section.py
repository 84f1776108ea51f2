"""What a section of the report is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.render.blocks import Block

View = Literal["terminal", "markdown", "html"]
DOCUMENTS: Final[frozenset[View]] = frozenset({"markdown", "html"})
EVERYWHERE: Final[frozenset[View]] = DOCUMENTS | {"terminal"}


Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Section(Generic[Facts]):
    """One part of every view of some facts, such as a `Report`; views keep the order of the list that it is in."""

    title: str
    """Above the blocks; empty for none."""
    blocks: Callable[[Facts], Sequence[Block]]
    """What it shows of the facts; nothing if they have nothing for it."""
    views: frozenset[View] = EVERYWHERE
    """Where it is shown."""
    last_on_terminal: bool = False
    """There it comes last: the end of the output is what stays on the screen."""
    leads: bool = False
    """Whether it says what was decided: the page shows it on a phone too, where it folds all others."""
    folded: bool = False
    """Whether the page folds it behind its title: it is looked up, not read."""

    @property
    def anchor(self) -> str:
        """The title as the name of a place in the page."""
        return self.title.lower().replace(" ", "-")


def shown(
    sections: Sequence[Section[Facts]], facts: Facts, view: View
) -> list[tuple[Section[Facts], tuple[Block, ...]]]:
    """The sections that `view` has for these facts, with their blocks; none of them is empty."""
    chosen = [section for section in sections if view in section.views]
    if view == "terminal":
        chosen.sort(key=lambda section: section.last_on_terminal)  # stable
    return [(section, blocks) for section in chosen if (blocks := tuple(section.blocks(facts)))]

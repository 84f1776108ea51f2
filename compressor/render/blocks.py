"""What a page is made of, without knowledge of where it is drawn.

Every text is plain: each back end (`terminal`, `markdown`, `html`) escapes all of it, in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Tone = Literal["good", "bad", "plain"]
MARKS: Final[dict[Tone, str]] = {"good": "✓", "bad": "✗", "plain": "•"}
ALARMS: Final = frozenset({"MISSED", "NO", "LOST"})
"""Cells of a table that every view makes stand out."""
_NUMBER: Final = re.compile(r"[-−]?\d.{,29}")


@dataclass(frozen=True)
class Heading:
    """The name of the page, and the verdict."""

    text: str
    verdict: Statement


@dataclass(frozen=True)
class Text:
    """A paragraph; `muted` for what only explains."""

    text: str
    muted: bool = False


@dataclass(frozen=True)
class Statement:
    """One sentence that a reader should not miss."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Statements:
    """Sentences, one below the other, each with the mark of its tone."""

    items: tuple[Statement, ...]


@dataclass(frozen=True)
class Card:
    """One headline number, before and after."""

    title: str
    before: str
    after: str
    change: str
    tone: Tone


@dataclass(frozen=True)
class Cards:
    """Headline numbers side by side."""

    items: tuple[Card, ...]


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it is aligned to the right: most of its cells are short and start like a number."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return tuple(index > 0 and _mostly_numbers(cells) for index, cells in enumerate(columns))

    def without_empty_columns(self) -> Table:
        """The table without columns that hold nothing."""
        kept = [index for index in range(len(self.header)) if any(row[index] for row in self.rows)]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Table(tuple(self.header[index] for index in kept), rows)


def _mostly_numbers(cells: tuple[str, ...]) -> bool:
    filled = [cell for cell in cells if cell]
    return 2 * sum(_NUMBER.fullmatch(cell) is not None for cell in filled) > len(filled)


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Links:
    """Files in the same folder as the page, by their relative names."""

    files: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A plot: SVG that is ready for a page, with a title and what it shows; its marks say their values on hover."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Figures:
    """Plots side by side."""

    items: tuple[Figure, ...]


@dataclass(frozen=True)
class Code:
    """Text whose lines stay as they are; a `command` is one that a reader may want to copy."""

    text: str
    language: str
    command: bool = False


@dataclass(frozen=True)
class Group:
    """Blocks under a title."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Details:
    """As `Group`, folded behind its title if the back end can fold."""

    title: str
    blocks: tuple[Block, ...]
    unfolded: bool = False


Block = Heading | Text | Statements | Cards | Table | Items | Links | Figures | Code | Group | Details

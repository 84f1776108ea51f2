"""What views are made of, as plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "plain"]
MARKS: dict[Tone, str] = {"good": "✓", "bad": "✗", "plain": "•"}


@dataclass(frozen=True)
class Table:
    """Cells of plain text; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Statement:
    """One sentence that a reader should not miss."""

    tone: Tone
    text: str

"""Repetitions in two sequences of words, which are longer in the second one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REPEATS = 3
"""Fewest iterations in a row by which a loop is known."""


@dataclass(frozen=True)
class Run:
    """The same repeated operations in both traces."""

    period: int
    starts: tuple[int, int]
    ends: tuple[int, int]
    shift: int
    """By how much the first trace starts later in its iteration than the second."""


def growing_runs(short: list[int], long: list[int]) -> list[Run]:
    """Runs that are longer in the second trace, shortest periods first; they do not overlap."""
    short, long = list(short), list(long)
    growing = []
    masked = -1
    for period in range(1, len(long) // REPEATS + 1):
        theirs = list(_runs(short, period))
        for start, end in list(_runs(long, period)):
            word = long[start : start + period]
            for index, (other, other_end) in enumerate(theirs):
                shift = _shift(word, short[other : other + period])
                if shift is None:
                    continue
                del theirs[index]
                if end - start != other_end - other:
                    growing.append(Run(period, (other, start), (other_end, end), shift))
                    for words, first, last in ((short, other, other_end), (long, start, end)):
                        for place in range(first, last):
                            words[place] = masked
                            masked -= 1
                break
    return growing


def _runs(words: list[int], period: int) -> Iterator[tuple[int, int]]:
    """Start and end of the parts that repeat with a period."""
    start = None
    for place in range(len(words) - period + 1):
        if place < len(words) - period and words[place] == words[place + period]:
            start = place if start is None else start
        elif start is not None:
            if place + period - start >= REPEATS * period:
                yield start, place + period
            start = None


def _shift(word: list[int], other: list[int]) -> int | None:
    """By how much `word` has to be rotated to give the other one."""
    return next((shift for shift in range(len(word)) if word[shift:] + word[:shift] == other), None)

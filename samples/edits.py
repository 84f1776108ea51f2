"""How many edits turn what was said into what should have been said."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def edit_distance(found: Sequence[object], wanted: Sequence[object]) -> int:
    """Least number of insertions, deletions and substitutions from one sequence to the other.

    d(i, j) = min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + [found_i != wanted_j]) (Levenshtein 1966).
    """
    above = list(range(len(wanted) + 1))
    for i, item in enumerate(found, start=1):
        row = [i]
        for j, other in enumerate(wanted, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (item != other)))
        above = row
    return above[-1]

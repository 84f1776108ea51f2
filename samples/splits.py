"""Which data are scored, which are validated and which are learnt."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")


@dataclass(frozen=True)
class Split(Generic[Item]):
    """Data in three parts, nothing in two of them."""

    scored: list[Item]
    validated: list[Item]
    learnt: list[Item]


def drawn(items: Iterable[Item], scored: int, validated: int) -> Split[Item]:
    """Draw so many at random, always the same ones of the same items in the same order; the rest is learnt from."""
    shuffled = list(items)
    random.Random(0).shuffle(shuffled)
    return Split(shuffled[:scored], shuffled[scored : scored + validated], shuffled[scored + validated :])

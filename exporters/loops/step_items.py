"""Lists in which a loop collected its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.loops.operations import Op

if TYPE_CHECKING:
    from exporters.loops.relations import Where


@dataclass
class StepItems:
    """Items of a list that a loop gave in iterations which follow each other."""

    loop: int
    place: int
    first: int
    count: int
    step: int


def step_items(items: Any, where: Where) -> list[Any]:
    """The items of a list, those of a loop that follow each other as one."""
    parts: list[Any] = []
    for item in items:
        if not (isinstance(item, Op) and item in where):
            parts.append(item)
            continue
        loop, place, i = where[item]
        last = parts[-1] if parts else None
        if isinstance(last, StepItems) and (last.loop, last.place) == (loop, place):
            step = i - (last.first + (last.count - 1) * last.step)
            if step in (1, -1) and (last.count == 1 or step == last.step):
                last.count, last.step = last.count + 1, step
                continue
        parts.append(StepItems(loop, place, i, 1, 1))
    return parts

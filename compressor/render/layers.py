"""The layers of a model in rows: those of the original and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compressor.report import LayerCost

_MOST_ROWS: Final = 14
REST: Final = "rest"
"""The row of what belongs to no module alone."""


@dataclass(frozen=True)
class Row:
    """One layer, or several under the name that they share; empty on a side that does not have it."""

    name: str
    before: tuple[LayerCost, ...]
    after: tuple[LayerCost, ...]


def rows(before: Sequence[LayerCost], after: Sequence[LayerCost]) -> list[Row]:
    """In the order of the model; the rest comes last.

    What replaces a layer stands in its row: `rnn.nodes.0` in that of `rnn`. If there are too many, layers are put
    together by the beginnings of their names, as few as needed.
    """
    names = list(dict.fromkeys(cost.name for cost in (*before, *after)))
    heads = {name: _head(name, names) for name in names}
    depth = max(name.count(".") + 1 for name in names) if names else 1
    while depth > 1 and len(set(heads.values())) > _MOST_ROWS:
        depth -= 1
        heads = {name: ".".join(head.split(".")[:depth]) for name, head in heads.items()}
    ordered = sorted(dict.fromkeys(heads.values()), key=lambda name: not name)
    return [Row(name or REST, _under(name, heads, before), _under(name, heads, after)) for name in ordered]


def total(costs: Iterable[LayerCost], of: Callable[[LayerCost], float | None]) -> float | None:
    """The sum of a quantity; None if it is not known of one of them, or there are none."""
    known = [of(cost) for cost in costs]
    return None if not known or None in known else sum(value for value in known if value is not None)


def _head(name: str, names: Sequence[str]) -> str:
    """The shortest of the names that `name` lies in."""
    return min((other for other in names if other and f"{name}.".startswith(f"{other}.")), key=len, default=name)


def _under(head: str, heads: dict[str, str], costs: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    return tuple(cost for cost in costs if heads[cost.name] == head)

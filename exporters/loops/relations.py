"""What the arguments of an operation in a loop are, in any iteration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exporters.loops.operations import Op, leaves, map_tree


@dataclass(frozen=True)
class Same:
    """Operation `place` of the iteration `lag` before this one."""

    place: int
    lag: int


@dataclass(frozen=True)
class Counted:
    """The integer step * i + start in iteration i."""

    step: int
    start: int


@dataclass(frozen=True)
class Element:
    """What operation `place` of another loop gives in its iteration step * i + start."""

    loop: int
    place: int
    step: int
    start: int


@dataclass
class Loop:
    """The iterations of one loop in one trace."""

    index: int
    targets: list[Any]
    arguments: list[Any]
    """For each operation of the body its (args, kwargs), whose leaves are `Op` (an invariant), one of the above, or a
    constant."""
    instances: list[list[Op | None]]
    """For each operation its results, by iteration; None if nothing reads a result and it is not in the trace."""
    initial: dict[tuple[int, int], Any] = field(default_factory=dict)
    """(place, lag) -> what stands for that operation `lag` iterations before the first one."""

    @property
    def count(self) -> int:
        """Number of iterations."""
        return len(self.instances[0])


Where = dict[Op, tuple[int, int, int]]
"""Operation -> loop, place and iteration."""


UNRELATED = object()
"""Instead of a relation: there is none."""


def relation(one: Op, two: Op, i: int, places: dict[Op, tuple[int, int]], where: Where) -> Any:
    """What the arguments of an operation in iterations i and i + 1 are, or None."""
    flat = [list(leaves((op.args, op.kwargs))) for op in (one, two)]
    if len(flat[0]) != len(flat[1]):
        return None
    relations = [_leaf_relation(a, b, i, places, where) for a, b in zip(*flat, strict=True)]
    if UNRELATED in relations:
        return None
    rest = iter(relations)
    return map_tree((one.args, one.kwargs), lambda _: next(rest))


def _leaf_relation(a: Any, b: Any, i: int, places: dict[Op, tuple[int, int]], where: Where) -> Any:
    if isinstance(a, Op) and isinstance(b, Op):
        if a is b:
            return a
        if a in places and b in places:
            (place, earlier), (other, later) = places[a], places[b]
            return Same(place, i - earlier) if place == other and later == earlier + 1 and earlier <= i else UNRELATED
        if a in where and b in where:
            (loop, place, earlier), (other_loop, other, later) = where[a], where[b]
            step = later - earlier
            same = (loop, place) == (other_loop, other)
            return Element(loop, place, step, earlier - step * i) if same else UNRELATED
        return UNRELATED
    if type(a) is int and type(b) is int:
        return a if a == b else Counted(b - a, a - (b - a) * i)
    return a if type(a) is type(b) and repr(a) == repr(b) else UNRELATED


def fits(relation: Any, leaf: Any, i: int, first: int, places: dict[Op, tuple[int, int]], where: Where) -> bool:
    """Whether an argument is what a relation says of iteration i, if the loop starts with iteration `first`."""
    if isinstance(relation, Same):
        return isinstance(leaf, Op) and places.get(leaf) == (relation.place, i - relation.lag)
    if isinstance(relation, Counted):
        return type(leaf) is int and leaf == relation.step * i + relation.start
    if isinstance(relation, Element):
        place = (relation.loop, relation.place, relation.step * i + relation.start)
        return isinstance(leaf, Op) and where.get(leaf) == place
    if isinstance(relation, Op):
        return leaf is relation and (leaf not in places or places[leaf][1] < first)
    return type(leaf) is type(relation) and repr(leaf) == repr(relation)


def moved(leaf: Any, first: int) -> Any:
    """A relation, with iterations counted from `first` on."""
    if isinstance(leaf, Counted):
        return Counted(leaf.step, leaf.start + leaf.step * first)
    if isinstance(leaf, Element):
        return Element(leaf.loop, leaf.place, leaf.step, leaf.start + leaf.step * first)
    return leaf

"""Nested loops of C over arrays that are walked with steps of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Steps = tuple[int, ...]
"""How far to go in an array for one position along each axis of the loops."""


def broadcast(shape: Sequence[int], strides: Sequence[int], sizes: Sequence[int]) -> Steps:
    """The steps of an array of `shape` in loops over `sizes`; axes of size 1 are stretched, missing ones in front."""
    missing = len(sizes) - len(shape)
    return (
        *(0 for _ in range(missing)),
        *(
            0 if size == 1 and whole != 1 else step
            for size, step, whole in zip(shape, strides, sizes[missing:], strict=True)
        ),
    )


def merged(sizes: Sequence[int], walks: Sequence[Steps]) -> tuple[list[int], list[Steps]]:
    """The same loops with as few axes as possible: neighbours are one axis if every array goes through them evenly."""
    kept: list[int] = []
    steps: list[list[int]] = [[] for _ in walks]
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        if kept and all(own[-1] == walk[axis] * size for own, walk in zip(steps, walks, strict=True)):
            kept[-1] *= size
            for own, walk in zip(steps, walks, strict=True):
                own[-1] = walk[axis]
            continue
        kept.append(size)
        for own, walk in zip(steps, walks, strict=True):
            own.append(walk[axis])
    return kept, [tuple(own) for own in steps]


def loops(sizes: Sequence[int], walks: Sequence[Steps], body: Callable[[list[str]], Sequence[str]]) -> list[str]:
    """C that goes through all positions.

    Args:
        sizes: Of the axes.
        walks: The steps of each array.
        body: The C expression of the index into each array -> the lines inside.
    """
    kept, steps = merged(sizes, walks)
    lines: list[str] = []
    for depth, size in enumerate(kept):
        name = _name(depth)
        lines.append(f"{_indent(depth)}for (int {name} = 0; {name} < {size}; ++{name}) {{")
    inner = [_indent(len(kept)) + line for line in body([_index(walk) for walk in steps])]
    return [*lines, *inner, *(f"{_indent(depth)}}}" for depth in reversed(range(len(kept))))]


def _index(walk: Steps) -> str:
    terms = [
        _name(axis) if step == 1 else f"{_name(axis)} * {step}" if step > 0 else f"{_name(axis)} * ({step})"
        for axis, step in enumerate(walk)
        if step
    ]
    return " + ".join(terms) or "0"


def _name(axis: int) -> str:
    return "ijklmnpq"[axis]


def _indent(depth: int) -> str:
    return "    " * depth

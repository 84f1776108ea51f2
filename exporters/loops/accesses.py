"""Steps of a tensor that a loop reads, and parts of a tensor that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporters.loops.description import Affine, Iteration, Node
from exporters.loops.kinds import slice_width
from exporters.loops.relations import Same
from exporters.loops.results import Results, first, joined, rows_of, stacked

if TYPE_CHECKING:
    from torch import Tensor

    from exporters.loops.loop_state import LoopState

_OPS = torch.ops.aten


def accessed(loop: LoopState, place: int, lag: int = 0) -> Results:
    """Steps of a tensor, `lag` iterations late."""
    args = loop.body.arguments[place][0]
    source, axis, index = args[0], args[1], args[2]
    x = loop.run.value(source)
    rank = x.dim()
    width = 1 if loop.body.targets[place] is _OPS.select.int else slice_width(args)
    assert width is not None
    x = first(x, axis % rank)
    whole = (
        width == 1
        and abs(index.step) == 1
        and lag == 0
        and index.start == (Affine(0, 0) if index.step > 0 else loop.body.count.last)
        and loop.covers(source, axis)
    )
    start = index.start.at(loop.run.length) - index.step * lag
    pieces = [x if whole else rows_of(x, start + j, index.step, loop.count) for j in range(width)]
    if loop.body.targets[place] is not _OPS.select.int:
        pieces = [torch.stack(pieces, axis % rank + 1) if width > 1 else pieces[0].unsqueeze(axis % rank + 1)]
    return loop.padded(Results(pieces[0], index.step < 0))


def is_access_before(loop: LoopState, place: int, lag: int) -> bool:
    """Whether what stands for an access before the first iteration is the same access there."""
    before = loop.body.initial.get((place, lag))
    if not isinstance(before, Node) or before.target is not loop.body.targets[place]:
        return False
    wanted, _ = loop.body.arguments[place]
    return len(before.args) == len(wanted) and all(
        (
            a == _constant(Affine(b.start.slope, b.start.offset - b.step * lag))
            if isinstance(b, Iteration)
            else a is b or a == b
        )
        for a, b in zip(before.args, wanted, strict=True)
    )


def written(loop: LoopState, place: int, rows: Results) -> Tensor:
    """The tensor into which a loop wrote `rows`, a part at every step; see `part_of`."""
    args = loop.body.arguments[place][0]
    if loop.body.targets[place] is _OPS.cat.default:
        return _appended(loop, place, rows)
    axis, index = args[2], args[3]
    count, parts = loop.count, rows.turned(index.step < 0)
    if loop.planned.padded:
        parts = parts[1:] if index.step < 0 else parts[:count]
    one = loop.body.targets[place] is _OPS.select_scatter.default
    block = stacked(parts, axis) if one else joined(parts, axis)
    base = loop.body.initial[place, 1]
    lowest = index.start if index.step > 0 else index.start.plus(loop.body.count.last, -1)
    if lowest == Affine(0, 0) and loop.covers(base, axis):
        return block
    x = first(loop.run.value(base), axis)
    start = lowest.at(loop.run.length)
    return torch.cat([stacked(x[:start], axis), block, stacked(x[start + count :], axis)], axis)


def _appended(loop: LoopState, place: int, rows: Results) -> Tensor:
    """The tensor to which a loop joined a part at every step, behind it or in front of it."""
    parts, *axes = loop.body.arguments[place][0]
    behind = parts[0] == Same(place, 1)
    pieces = rows.turned(not behind)
    if loop.planned.padded:
        pieces = pieces[: loop.count] if behind else pieces[1:]
    axis = (axes[0] if axes else 0) % (pieces.dim() - 1)
    both = [loop.run.value(loop.body.initial[place, 1]), joined(pieces, axis)]
    return torch.cat(both if behind else both[::-1], axis)


def part_of(loop: LoopState, place: int) -> Any:
    """The argument of an operation that it writes into a tensor, or joins to it."""
    args = loop.body.arguments[place][0]
    if loop.body.targets[place] is _OPS.cat.default:
        return args[0][args[0][0] == Same(place, 1)]
    return args[1]


def _constant(affine: Affine) -> Any:
    return affine.offset if affine.slope == 0 else affine

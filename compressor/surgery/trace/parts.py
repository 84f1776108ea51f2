"""One axis of features taken apart: by a view into blocks, by `chunk`, or into the groups of a convolution.

A model cuts the axis at places that follow from its size. Either the number of blocks is fixed and each loses the same
number of features: those at one place of every block are joined, they go together. Or the size of a block is fixed, as
of the heads of an attention: whole blocks go, and the features of one are a single unit. A `-1` in the view tells which
of both; without one the first is taken, and the second if the smaller model is not right (`Trace.whole_blocks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.surgery.trace.labels import varies

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten
_VIEWS = {aten.view.default, aten._unsafe_view.default}
_CHUNKS = {aten.split.Tensor, aten.unsafe_split.Tensor}


def follow_parts(trace: Trace, func: Any, args: Any, labels: Tensor | None, outputs: list[Tensor]) -> None:
    """Join what an operation that gives views takes apart; `labels` are those of what it is given."""
    if labels is None:
        return
    varying = [axis for axis in range(labels.dim()) if varies(labels, axis)]
    if len(varying) != 1:
        return  # of several, as in `h_n`, nothing tells which one shrinks
    [axis] = varying
    if func in _VIEWS:
        _follow_view(trace, list(args[1]), labels, axis, outputs[0])
    elif (
        func in _CHUNKS
        and args[2:] in ((axis,), (axis - labels.dim(),), () if axis == 0 else None)
        and labels.size(axis) == len(outputs) * outputs[0].size(axis)
    ):
        join_blocks(trace, _along(labels, axis), len(outputs))


def _along(labels: Tensor, axis: int) -> Ids:
    return labels.movedim(axis, 0).reshape(labels.size(axis), -1)[:, 0].numpy()


def _follow_view(trace: Trace, wanted: list[int], labels: Tensor, axis: int, output: Tensor) -> None:
    """A view that takes an axis apart, `wanted` being its sizes as the code has them."""
    parts = _parts(list(labels.size()), list(output.size()), axis)
    sizes = [output.size(part) for part in parts]
    grid = trace.atoms.roots(_along(labels, axis)).reshape(sizes) if parts else np.zeros(0, np.int64)
    cut = [place for place in range(len(parts)) if (grid != grid.take([0], place)).any()]
    if len(cut) < 2:  # what differs along no other axis is the same features at several places
        if cut:  # blocks that an earlier call of the same layer has joined are one feature each
            _write_along(trace, output, parts[cut[0]], np.moveaxis(grid, cut[0], 0).reshape(sizes[cut[0]], -1)[:, 0])
        return
    counted = [place for place in cut if wanted[parts[place]] == -1]
    trace.cut_by_size |= not counted
    [losing] = counted or [cut[-2] if trace.whole_blocks else cut[-1]]
    if losing == len(parts) - 1:
        join_blocks(trace, grid.ravel(), grid.size // sizes[-1])
        return
    units = np.moveaxis(grid, losing, 0).reshape(sizes[losing], -1)
    trace.atoms.join(units, units[:, :1])
    trace.atoms.pin(units[(units == 0).any(1)], "a block of fixed size holds a fixed feature")
    _write_along(trace, output, parts[losing], units[:, 0])


def _write_along(trace: Trace, output: Tensor, axis: int, features: Ids) -> None:
    shape = [1] * output.dim()
    shape[axis] = len(features)
    trace.write(output, torch.from_numpy(np.ascontiguousarray(features)).view(shape))


def join_blocks(trace: Trace, features: Ids, blocks: int) -> None:
    """Join what lies at the same place of blocks of equal size, unless each is all units of a recurrent layer.

    Layers and directions lose the same number in any case, each its own.
    """
    parts = features.reshape(blocks, -1)
    layers = {trace.atoms.roots(units).tobytes() for units in trace.units.values()}
    if not all(trace.atoms.roots(part).tobytes() in layers for part in parts):
        trace.atoms.join(parts, parts[:1])
        pinned = (parts == 0).any(0) & (parts != 0).any(0)
        if pinned.any():
            trace.atoms.pin(parts[:, pinned], "a block of equal size holds a fixed feature at its place")


def _parts(before: list[int], after: list[int], axis: int) -> list[int]:
    """The axes that a view makes of one axis; none if it does not take that one apart."""
    start = int(np.prod(before[:axis]))
    done, index = 1, 0
    while index < len(after) and done < start:
        done *= after[index]
        index += 1
    parts: list[int] = []
    rest = before[axis]
    while done == start and index < len(after) and rest > 1:
        if rest % after[index]:
            return []
        rest //= after[index]
        parts.append(index)
        index += 1
    return parts if rest == 1 else []

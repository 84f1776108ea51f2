"""One axis of features taken apart: by a view into blocks, by `chunk`, or into the groups of a convolution.

A model cuts the axis at places that follow from its size, so each block has to lose the same number of features. The
features at one place of every block are joined: they go together.
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
        blocks = _blocks(list(labels.size()), list(outputs[0].size()), axis)
    elif func in _CHUNKS and args[2:] in ((axis,), (axis - labels.dim(),), () if axis == 0 else None):
        blocks = len(outputs) if labels.size(axis) == len(outputs) * outputs[0].size(axis) else 1
    else:
        return
    if blocks > 1:
        first = labels.movedim(axis, 0).reshape(labels.size(axis), -1)[:, 0].numpy()
        join_blocks(trace, first, blocks)


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


def _blocks(before: list[int], after: list[int], axis: int) -> int:
    """How many blocks a view makes of an axis; 1 if it does not take that axis apart."""
    start = int(np.prod(before[:axis]))
    done, index = 1, 0
    while index < len(after) and done < start:
        done *= after[index]
        index += 1
    if done != start:
        return 1
    blocks, rest = 1, before[axis]
    while index < len(after) and rest > 1:
        if rest % after[index]:
            return 1
        rest //= after[index]
        if rest > 1:
            blocks *= after[index]
        index += 1
    return blocks

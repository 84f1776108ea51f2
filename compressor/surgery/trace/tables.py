"""Parameters with several axes in arithmetic, such as the matrix of a state space, biases by head, or rotations.

An element carries one atom, and such a table has one for each of its axes. So what it carries is decided where it meets
features: along the axis along which these differ. It has no part in them if it differs along other axes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.surgery.trace.labels import place, varies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

Axis = tuple[str, int, "Ids"]
"""A parameter, one of its axes, and positions along it."""
Axes = tuple[Axis | None, ...]


@dataclass(frozen=True)
class Table:
    """A tensor that holds a function of each element of a parameter."""

    tensor: Tensor
    axes: Axes


def table_axes(trace: Trace, tensor: Tensor) -> Axes | None:
    """What the axes of a table are, None for one of size 1; None if it is no table."""
    known = trace.tables.get(tensor.untyped_storage().data_ptr())
    name = trace.parameter_name(tensor)
    if known is not None:
        axes, base = known.axes, known.tensor
    elif name is not None:
        base = trace.tensors[name]
        axes = tuple((name, axis, np.arange(size, dtype=np.int64)) for axis, size in enumerate(base.shape))
    else:
        return None
    view = decoded(tensor, base)
    if view is None:
        return None
    found: list[Axis | None] = []
    for selection in view:
        own = None if selection is None else axes[selection[0]]
        found.append(None if own is None or selection is None else (own[0], own[1], own[2][selection[1]]))
    return tuple(found)


def decoded(view: Tensor, base: Tensor) -> list[tuple[int, Ids] | None] | None:
    """Per axis of a view of a contiguous tensor: which axis of that, and which positions.

    None for an axis of size 1 or stride 0. None as a whole if the view is no selection of positions (an axis that
    flattens two axes).
    """
    rest = view.storage_offset() - base.storage_offset()
    if rest < 0 or not base.is_contiguous():
        return None
    start = []
    for stride in base.stride():
        start.append(rest // stride if stride else 0)
        rest -= start[-1] * stride
    axes: list[tuple[int, Ids] | None] = []
    for size, stride in zip(view.size(), view.stride(), strict=True):
        if size == 1 or stride == 0:
            axes.append(None)
            continue
        selection = None
        for axis in range(base.dim()):
            length, step = base.size(axis), base.stride(axis)
            if length > 1 and stride % step == 0 and start[axis] + (size - 1) * (stride // step) < length:
                selection = (axis, int(start[axis]) + np.arange(size, dtype=np.int64) * (stride // step))
                break
        if selection is None:
            return None
        axes.append(selection)
    return axes


def along(trace: Trace, axes: Axes, axis: int) -> Tensor:
    """Labels of a table that differ along one of its axes."""
    own = axes[axis]
    assert own is not None
    shape = [1] * len(axes)
    shape[axis] = -1
    return torch.from_numpy(trace.atoms_of(own[0], own[1:], "read")).view(shape)


def by_default(trace: Trace, tensor: Tensor) -> Tensor | None:
    """Labels of a table that meets nothing: along its last axis."""
    axes = table_axes(trace, tensor)
    long = [] if axes is None else [place for place, axis in enumerate(axes) if axis is not None]
    return along(trace, axes, long[-1]).expand(tensor.size()) if axes is not None and long else None


def stays_table(trace: Trace, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Note what a function of each element makes of one table of several axes; False if it is something else."""
    if len(tensors) != 1 or len(outputs) != 1 or outputs[0].size() != tensors[0].size():
        return False
    if outputs[0] is tensors[0] or not outputs[0].is_contiguous():
        return False
    axes = table_axes(trace, tensors[0])
    if axes is None or sum(axis is not None for axis in axes) < 2:
        return False
    trace.tables[outputs[0].untyped_storage().data_ptr()] = Table(outputs[0], axes)
    return True


def aligned(
    trace: Trace, tensors: Sequence[Tensor], labels: Sequence[Tensor | None], shape: torch.Size
) -> list[Tensor | None]:
    """The labels of tensors that meet element by element, of tables along the axes along which the others differ."""
    axes = [None if label is None else table_axes(trace, tensor) for tensor, label in zip(tensors, labels, strict=True)]
    features = [
        label.expand(shape) for label, own in zip(labels, axes, strict=True) if own is None and label is not None
    ]
    differing = {axis for label in features if label.numel() for axis in range(len(shape)) if varies(label, axis)}
    if not differing:
        return list(labels)
    found: list[Tensor | None] = []
    for label, own in zip(labels, axes, strict=True):
        if label is None or own is None:
            found.append(label)
            continue
        fitting = [k for k, axis in enumerate(own) if axis is not None and k + len(shape) - len(own) in differing]
        if not fitting:
            trace.atoms.pin(label.numpy(), f"at {place()} it is combined with features along another axis")
        found.append(along(trace, own, fitting[-1]) if fitting else None)
    return found


def of_one_axis(trace: Trace, present: Sequence[Tensor]) -> list[Tensor]:
    """Labels of one shape without those that differ along other axes than the rest, which stay.

    As in the product of each channel with each place of a state: what only a parameter holds gives way, else the fewer.
    """
    left = [(part, {axis for axis in range(part.dim()) if varies(part, axis)}) for part in present]
    while True:
        apart = [
            (first, second) for first, axes in left for second, others in left if axes and others and not axes & others
        ]
        if not apart:
            return [part for part, _ in left]
        loser = min(apart[0], key=lambda part: weight(trace, part))
        trace.atoms.pin(loser.numpy(), f"at {place()} it is combined with features along another axis")
        left = [(part, axes) for part, axes in left if part is not loser]


def weight(trace: Trace, labels: Tensor) -> tuple[bool, int]:
    """Of two that cannot both be followed the larger is: features that a layer makes, then the more of them."""
    atoms = trace.atoms
    groups = np.unique(atoms.roots(labels.numpy()))
    groups = groups[groups != 0]
    made = [atoms.roots(own) for key, own in atoms.axes.items() if atoms.roles[key] != "read"]
    return bool(made) and bool(np.isin(groups, np.concatenate(made)).any()), len(groups)

"""Parameters with several axes in arithmetic, such as the matrix of a state space, biases by head, or rotations.

An element carries one atom, and such a table has one for each of its axes: which it carries is decided where it meets
features (`meeting`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressor.surgery.trace.atoms import Ids, Role

Axis = tuple[str, int, "Ids"]
"""A parameter, one of its axes, and positions along it."""
Axes = tuple[Axis | None, ...]


@dataclass(frozen=True)
class Table:
    """A tensor that holds a function of each element of a parameter."""

    tensor: Tensor
    axes: Axes


class Tables:
    """What is a table: the parameters, and what functions of each element make of one."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        name_of: Callable[[Tensor], str | None],
        atoms_of: Callable[[str, tuple[int, Ids] | None, Role], Ids],
    ) -> None:
        """Of a trace: its parameters, the name of the one that a tensor is a view of, and the atoms of positions."""
        self._tensors, self._name_of, self._atoms_of = tensors, name_of, atoms_of
        self._made: dict[int, Table] = {}

    def axes(self, tensor: Tensor) -> Axes | None:
        """What the axes of a table are, None for one of size 1; None if it is no table."""
        known = self._made.get(tensor.untyped_storage().data_ptr())
        name = self._name_of(tensor)
        if known is not None:
            axes, base = known.axes, known.tensor
        elif name is not None:
            base = self._tensors[name]
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

    def along(self, axes: Axes, axis: int) -> Tensor:
        """Labels of a table that differ along one of its axes."""
        own = axes[axis]
        assert own is not None
        shape = [1] * len(axes)
        shape[axis] = -1
        return torch.from_numpy(self._atoms_of(own[0], own[1:], "read")).view(shape)

    def by_default(self, tensor: Tensor) -> Tensor | None:
        """Labels of a table that meets nothing: along its last axis; None if it is no table."""
        axes = self.axes(tensor)
        long = [] if axes is None else [place for place, axis in enumerate(axes) if axis is not None]
        return self.along(axes, long[-1]).expand(tensor.size()) if axes is not None and long else None

    def takes(self, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        """Note what a function of each element makes of one table of several axes; False if it is something else."""
        if len(tensors) != 1 or len(outputs) != 1 or outputs[0].size() != tensors[0].size():
            return False
        if outputs[0] is tensors[0] or not outputs[0].is_contiguous():
            return False
        axes = self.axes(tensors[0])
        if axes is None or sum(axis is not None for axis in axes) < 2:
            return False
        self._made[outputs[0].untyped_storage().data_ptr()] = Table(outputs[0], axes)
        return True


def decoded(view: Tensor, base: Tensor) -> list[tuple[int, Ids] | None] | None:
    """Per axis of a view of a contiguous tensor: which axis of that, and which positions.

    None for an axis of size 1 or stride 0. Of two axes as one, such as gates and units in an `einsum`, the second one's
    positions, over and over. None as a whole if the view is no selection of positions.
    """
    rest = view.storage_offset() - base.storage_offset()
    if rest < 0 or not base.is_contiguous():
        return None
    start: list[int] = []
    for stride in base.stride():
        start.append(int(rest // stride) if stride else 0)
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
        selection = selection or _flattened(base, size, stride, start)
        if selection is None:
            return None
        axes.append(selection)
    return axes


def _flattened(base: Tensor, size: int, stride: int, start: Sequence[int]) -> tuple[int, Ids] | None:
    """The second of two neighbouring axes of a contiguous tensor which an axis of a view holds as one."""
    for axis in range(1, base.dim()):
        inner = base.size(axis)
        blocks = size // inner
        fits = stride == base.stride(axis) and start[axis] == 0 and size == blocks * inner
        if fits and start[axis - 1] + blocks <= base.size(axis - 1):
            return axis, np.tile(np.arange(inner, dtype=np.int64), blocks)
    return None

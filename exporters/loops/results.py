"""Results of all iterations of a loop, and rows of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Results:
    """Of all iterations (N, ...), the last one first if `backward`; several of an operator that gives several."""

    value: Any
    backward: bool = False

    def turned(self, backward: bool) -> Tensor:
        """In that order."""
        value: Tensor = self.value
        return value if self.backward is backward else value.flip(0)


def first(x: Tensor, axis: int) -> Tensor:
    """`x.movedim(axis, 0)`, as an operator that has an ONNX form."""
    axis %= x.dim()
    return x.permute(axis, *(other for other in range(x.dim()) if other != axis)) if axis else x


def stacked(rows: Tensor, axis: int) -> Tensor:
    """`torch.stack` of the rows of a tensor (K, ...)."""
    axis %= rows.dim()
    return rows.permute(*range(1, axis + 1), 0, *range(axis + 1, rows.dim())) if axis else rows


def joined(rows: Tensor, axis: int) -> Tensor:
    """`torch.cat` of the rows of a tensor (K, ...)."""
    if rows.shape[axis + 1] == 1:
        return stacked(rows.squeeze(axis + 1), axis)
    return stacked(rows, axis).flatten(axis, axis + 1)


def rows_of(x: Tensor, start: Any, step: int, count: Any) -> Tensor:
    """Rows start, start + step, ... of x, `count` of them, with the lowest one first."""
    lowest = start if step > 0 else start + step * (count - 1)
    if abs(step) == 1:
        return x[lowest : lowest + count]
    return x[lowest : lowest + abs(step) * (count - 1) + 1 : abs(step)]

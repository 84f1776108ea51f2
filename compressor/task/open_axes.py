"""Finds which axes of one example of a model's inputs are open, by calling the model with larger ones."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.task.axes import BATCH, TIME
from compressor.task.fidelity import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[[Sequence[Tensor]], Any]
    """Calls the model with the tensors of an example; raises whatever the model raises."""
    Group = tuple[int | None, ...]
    """For each tensor the axis that belongs to it, or None."""

_TRIALS = 48
"""Calls of the model for axes of one size."""
_LARGEST = 512
"""Sequences of up to this length are tried."""
_SAME = 1e-4


def find(tensors: Sequence[Tensor], run: Run) -> list[dict[int, str]]:
    """The open axes of each tensor by name, `batch` and `time`.

    Axes of one size are made larger together, as many of them as the model takes. An axis along which two inputs, one
    behind the other, give their two outputs, one behind the other, holds samples; the next open one holds positions.
    More axes stay as they are.
    """
    groups = _open_groups(tensors, run)
    batch = next((group for group in groups if _holds_samples(tensors, group, run)), None)
    time = next((group for group in groups if group is not batch), None)
    named: list[dict[int, str]] = [{} for _ in tensors]
    for word, group in ((BATCH, batch), (TIME, time)):
        for axes, axis in zip(named, group or [None] * len(tensors), strict=True):
            if axis is not None:
                axes[axis] = word
    return named


def lengths(length: int, runs: Callable[[int], bool]) -> tuple[int, int]:
    """Shortest and longest sequence that a model takes, as far as is tried: from 1 to 512, or `length` if more."""
    shortest = _boundary(1, length, runs)
    top = max(length, _LARGEST)
    return shortest, top + length - _boundary(length, top, lambda size: runs(top + length - size))


def _boundary(low: int, high: int, runs: Callable[[int], bool]) -> int:
    """The lowest number from `low` on for which `runs` holds, if it holds from there to `high`."""
    if low < high and runs(low):  # what most models do, so that no long sequence is tried twice
        return low
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle + 1, high)
    return high


def _open_groups(tensors: Sequence[Tensor], run: Run) -> list[Group]:
    """Groups of axes, at most one of each tensor, that the model takes at twice their size."""
    taken: set[tuple[int, int]] = set()
    groups: list[Group] = []
    sizes = dict.fromkeys(part.shape[axis] for axis in range(_most_axes(tensors)) for part in _with_axis(tensors, axis))
    for size in sizes:
        for group in islice(_candidates(tensors, size), _TRIALS):
            axes = {(index, axis) for index, axis in enumerate(group) if axis is not None}
            if axes and not axes & taken and _runs(run, _doubled(tensors, group)):
                taken |= axes
                groups.append(group)
    return groups


def _most_axes(tensors: Sequence[Tensor]) -> int:
    return max(part.dim() for part in tensors)


def _with_axis(tensors: Sequence[Tensor], axis: int) -> Iterator[Tensor]:
    return (part for part in tensors if part.dim() > axis and part.shape[axis])


def _candidates(tensors: Sequence[Tensor], size: int) -> Iterator[Group]:
    """Every choice of one axis of this size of each tensor, those with most tensors and the first axes first."""
    choices: list[list[int | None]] = [
        [*(axis for axis, here in enumerate(part.shape) if here == size), None] for part in tensors
    ]
    return product(*choices)


def _doubled(tensors: Sequence[Tensor], group: Group) -> list[Tensor]:
    """Other values of the same kind behind the old ones along the axes of a group."""
    return [
        part if axis is None else torch.cat([part, other_values(part)], dim=axis)
        for part, axis in zip(tensors, group, strict=True)
    ]


def other_values(part: Tensor) -> Tensor:
    """Other values in the range of the given ones: floats halved and moved, integers above 1 halved."""
    if part.is_floating_point():
        return part * 0.5 + 0.25
    return part if part.dtype == torch.bool else torch.where(part > 1, part // 2, part)


def _runs(run: Run, tensors: Sequence[Tensor]) -> bool:
    try:
        run(tensors)
    except Exception:
        return False
    return True


def _holds_samples(tensors: Sequence[Tensor], group: Group, run: Run) -> bool:
    """Whether every output that grows with the group's axes is the outputs of both halves, one behind the other."""
    others = [part if axis is None else other_values(part) for part, axis in zip(tensors, group, strict=True)]
    if not _runs(run, others):
        return False
    first, second, both = (tensors_of(run(given)) for given in (tensors, others, _doubled(tensors, group)))
    grown = False
    for one, other, joined in zip(first, second, both, strict=True):
        if one.shape == joined.shape:
            continue
        axis = next((axis for axis in range(one.dim()) if one.shape[axis] != joined.shape[axis]), 0)
        if one.shape != other.shape or not _same(torch.cat([one, other], dim=axis), joined):
            return False
        grown = True
    return grown


def _same(expected: Tensor, actual: Tensor) -> bool:
    close = expected.shape == actual.shape
    return close and torch.allclose(expected.double(), actual.double(), rtol=_SAME, atol=_SAME, equal_nan=True)

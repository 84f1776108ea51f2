"""What trials of a task share: whether two results are the same, and errors of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.errors import Place, TaskError
from compressor.task.axes import TIME
from compressor.task.samples import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask

_SAME = 1e-5
"""Largest difference of two calls on the same input, relative to the largest output; GPUs sum in any order."""


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two calls gave the same, to rounding; NaN counts as equal to NaN."""
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.numel() and not _close(one, other):
            return False
    return True


def _close(one: Tensor, other: Tensor) -> bool:
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    scale = float(one.abs().double().nan_to_num(posinf=0.0).max())
    return torch.allclose(one, other, rtol=0.0, atol=_SAME * scale, equal_nan=True)


def plain(dtype: torch.dtype) -> str:
    """`float32` of `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def refuse_other_lengths(task: GuardedTask, inputs: Inputs, what: str) -> None:
    """Refuse sequences of lengths at which no file is compared with PyTorch; `what` gave them."""
    if not any(TIME in axes.values() for axes in task.inputs.values()):
        return
    length = size(task, inputs, TIME)
    for word, limit, outside in (
        ("min_length", task.min_length, length < task.min_length),
        ("max_length", task.max_length, length > task.max_length),
    ):
        if outside:
            raise problem(
                task,
                f"{what} gives {length} positions, and `{word}` is {limit}",
                f"files are checked from `min_length` to `max_length`: set `{word}` to what is in use",
            )


def problem(task: GuardedTask, message: str, hint: str) -> TaskError:
    """An error of the task, at its file."""
    return TaskError(message, hint=hint, place=Place(task.file))

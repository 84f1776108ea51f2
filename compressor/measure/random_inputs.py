"""Random inputs for a file about which nothing else is known than what it declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from compressor.errors import UsageError
from compressor.runtimes.resources import refuse_larger

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.report import TensorInfo
    from compressor.runtimes.onnx_runtime import ModelFile

_BATCH_NAMES: Final = ("batch", "b", "n")


def random_input(info: TensorInfo, *, batch: int, length: int) -> Tensor:
    """One input of a file, the same every time.

    Floats are standard normal, an integer input whose name contains `len` is filled with `length`, other integers are
    zeros, booleans are true. An axis named `batch`, or else the first, takes the batch size; other dynamic axes take
    the length.

    Raises:
        UsageError: The input has a type that PyTorch does not have.
    """
    long = _long_axes(info)
    shape = [
        size if isinstance(size, int) else length if axis in long else batch for axis, size in enumerate(info.shape)
    ]
    dtype = getattr(torch, info.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"no random input for `{info.name}` of type {info.dtype}", hint="give --task")
    refuse_larger(
        math.prod(shape) * dtype.itemsize,
        f"input `{info.name}` of shape {tuple(shape)}",
        "give a smaller --batch or --length",
    )
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    return torch.full(shape, length if "len" in info.name.lower() else 0, dtype=dtype)


def has_length(file: ModelFile) -> bool:
    """Whether an input of a file takes a length."""
    return any(_long_axes(info) for info in file.inputs)


def _long_axes(info: TensorInfo) -> list[int]:
    """The dynamic axes that are not the batch's."""
    batch_axis = next((axis for axis, size in enumerate(info.shape) if str(size).lower() in _BATCH_NAMES), 0)
    return [axis for axis, size in enumerate(info.shape) if axis != batch_axis and not isinstance(size, int)]


def random_inputs(file: ModelFile, *, batch: int, length: int, states: int = 0) -> tuple[Tensor, ...]:
    """All inputs of a file but its last `states`."""
    count = len(file.inputs) - states
    return tuple(random_input(info, batch=batch, length=length) for info in file.inputs[:count])

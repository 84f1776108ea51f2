"""Compares the outputs of an ONNX file with those of a changed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from compressor.errors import ExportError, UsageError
from compressor.onnx_graphs.axes import is_batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from compressor.report import TensorInfo

ATOL, RTOL = 1e-5, 1e-4
_SIZES = ((1, 1), (2, 7), (3, 13), (1, 32))
"""(batch, length) of each comparison; its place is its seed."""


class File(Protocol):
    """A file in a runtime, such as `compressor.runtimes.onnx_runtime.OnnxFile`."""

    inputs: tuple[TensorInfo, ...]

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs."""


def compare(before: File, after: File, shapes: Mapping[str, int]) -> tuple[tuple[int, float], ...]:
    """Largest difference of two files at several sizes, or for several inputs if `shapes` fixes all axes.

    Inputs are random: normal floats, lengths from 1 to the longest, other whole numbers 0 or 1, and masks that show at
    least one position in every row.

    Args:
        before: The original file.
        after: The changed one; its inputs have as many axes, some of them fixed.
        shapes: Name of an axis of `before` -> its size in `after`.

    Returns:
        (seed, largest absolute difference) of each comparison.

    Raises:
        ExportError: They differ by more than 1e-5 + 1e-4 of the value.
    """
    differences = []
    for seed, (batch, length) in enumerate(_SIZES):
        generator = torch.Generator().manual_seed(seed)
        inputs = [
            _random_input(item, fixed, shapes, batch, length, generator)
            for item, fixed in zip(before.inputs, after.inputs, strict=True)
        ]
        pairs = zip(_as_tuple(before(*inputs)), _as_tuple(after(*inputs)), strict=True)
        largest = max((_difference(index, *pair) for index, pair in enumerate(pairs)), default=0.0)
        differences.append((seed, largest))
    return tuple(differences)


def _difference(index: int, expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        raise _differs(index, f"has shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    difference = torch.where(expected == actual, 0.0, (expected.double() - actual.double()).abs())
    if not bool((difference <= ATOL + RTOL * expected.double().abs()).all()):
        raise _differs(index, f"is off by {float(difference.max()):.2g}")
    return float(difference.max()) if difference.numel() else 0.0


def _differs(index: int, how: str) -> ExportError:
    return ExportError(
        f"the changed file is wrong: in ONNX Runtime its output {index} {how}; it was not written",
        hint="this is a fault of --fix; check without it, and change the model or the export instead",
    )


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _random_input(
    item: TensorInfo, fixed: TensorInfo, shapes: Mapping[str, int], batch: int, length: int, generator: torch.Generator
) -> Tensor:
    """An input of the size that `fixed` has, and of `batch` and `length` on axes that are open in both files."""
    sizes = [
        size if isinstance(size, int) else other if isinstance(other, int) else batch if is_batch(size) else length
        for size, other in zip(item.shape, fixed.shape, strict=True)
    ]
    dtype = getattr(torch, item.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"no random input can be made for `{item.name}` of type {item.dtype}")
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    if "len" in item.name.lower():
        time = next((size for name, size in shapes.items() if not is_batch(name)), length)
        return torch.randint(1, time + 1, sizes, generator=generator).to(dtype)
    chosen = torch.randint(0, 2, sizes, generator=generator)
    if dtype == torch.bool and sizes:
        chosen[..., 0] = 1  # attention over a row that is masked altogether is not defined
    return chosen.to(dtype)

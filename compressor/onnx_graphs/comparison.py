"""Do two ONNX files give the same in ONNX Runtime?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.errors import ExportError, UsageError
from compressor.runtimes.onnx_runtime import OnnxFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from compressor.report import TensorInfo

ATOL, RTOL = 1e-5, 1e-4
_SIZES = ((1, 1), (2, 7), (3, 13), (1, 32))
_SEEDS = 4


def compare(old: Path, new: Path, shapes: Mapping[str, int]) -> tuple[tuple[int, float], ...]:
    """Largest difference of two files at several sizes, or with several inputs where `shapes` fixes all.

    Inputs are made up: normal floats, lengths from 1 to the longest, other whole numbers 0 or 1,
    and masks that show something in every row.

    Args:
        old: The first file.
        new: The other one, whose inputs have as many axes, some of them fixed.
        shapes: Name of an axis of `old` -> its size in `new`.

    Returns:
        (seed, largest absolute difference) of each comparison.

    Raises:
        ExportError: They differ by more than 1e-5 + 1e-4 of the value.
    """
    before, after = OnnxFile(old), OnnxFile(new)
    found = []
    for seed in range(_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        batch, length = _SIZES[seed]
        inputs = [
            _made_up(item, narrow, shapes, batch, length, generator)
            for item, narrow in zip(before.inputs, after.inputs, strict=True)
        ]
        wanted, got = before(*inputs), after(*inputs)
        pairs = zip(_flat(wanted), _flat(got), strict=True)
        largest = 0.0
        for index, (ours, theirs) in enumerate(pairs):
            if ours.shape != theirs.shape:
                raise _differs(index, f"has shape {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
            difference = torch.where(ours == theirs, 0.0, (ours.double() - theirs.double()).abs())
            if not bool((difference <= ATOL + RTOL * ours.double().abs()).all()):
                raise _differs(index, f"is off by {float(difference.max()):.2g}")
            largest = max(largest, float(difference.max()) if difference.numel() else 0.0)
        found.append((seed, largest))
    return tuple(found)


def _differs(index: int, how: str) -> ExportError:
    return ExportError(
        f"the changed file is not right: in ONNX Runtime its output {index} {how}; it was not written",
        hint="this is a fault of --fix; check without it, and change the model or the export instead",
    )


def _flat(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _made_up(
    item: TensorInfo, narrow: TensorInfo, shapes: Mapping[str, int], batch: int, length: int, generator: torch.Generator
) -> Tensor:
    sizes = [
        size if isinstance(size, int) else other if isinstance(other, int) else _size(size, batch, length)
        for size, other in zip(item.shape, narrow.shape, strict=True)
    ]
    dtype = getattr(torch, item.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"no input can be made up for `{item.name}` of type {item.dtype}")
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    if "len" in item.name.lower():
        time = next((size for name, size in shapes.items() if name.lower() not in ("batch", "b", "n")), length)
        return torch.randint(1, time + 1, sizes, generator=generator).to(dtype)
    chosen = torch.randint(0, 2, sizes, generator=generator)
    if dtype == torch.bool and sizes:
        chosen[..., 0] = 1  # what a mask hides altogether has no defined attention
    return chosen.to(dtype)


def _size(name: str, batch: int, length: int) -> int:
    return batch if name.lower() in ("batch", "b", "n") else length

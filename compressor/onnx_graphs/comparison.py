"""Compares the outputs of an ONNX file with those of a changed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from compressor.errors import ExportError, UsageError
from compressor.onnx_graphs import walk
from compressor.onnx_graphs.axes import is_batch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx
    from torch import Tensor

    from compressor.report import TensorInfo

ATOL, RTOL = 1e-5, 1e-4
_SIZES = ((1, 1), (2, 7), (3, 13), (1, 32))
"""(batch, length) of each comparison; its place is its seed."""


class File(Protocol):
    """A file in a runtime, such as what `compressor.runtimes.runtime_file.open_file` gives."""

    inputs: tuple[TensorInfo, ...]

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs."""


_MASK = 3
"""Place of the mask among the inputs of an `Attention`."""


def masks(proto: onnx.ModelProto) -> frozenset[str]:
    """Inputs of a graph that an `Attention` reads as its mask."""
    inputs = {value.name for value in proto.graph.input}
    attention = [node for node in walk.nodes_of_model(proto) if node.op_type == "Attention"]
    return frozenset(node.input[_MASK] for node in attention if len(node.input) > _MASK) & inputs


def compare(
    before: File, after: File, shapes: Mapping[str, int], masks: Collection[str] = ()
) -> tuple[tuple[int, float], ...]:
    """Largest difference of two files at several sizes, or for several inputs if `shapes` fixes all axes.

    Inputs are random: normal floats, lengths from 1 to the longest, other whole numbers 0 or 1. The first half of the
    comparisons shows at least one position in every row of a mask; in the other half a row is hidden as a whole.

    Args:
        before: The original file.
        after: The changed one; its inputs have as many axes, some of them fixed.
        shapes: Name of an axis of `before` -> its size in `after`.
        masks: Inputs of floats that hide positions by minus infinity, see the function of that name; each input of
            truth values counts as a mask.

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
        hidden_row = seed >= len(_SIZES) // 2
        inputs = [
            _masked(values, generator, hidden_row=hidden_row) if _is_mask(item, masks) else values
            for item, values in zip(before.inputs, inputs, strict=True)
        ]
        pairs = zip(_as_tuple(before(*inputs)), _as_tuple(after(*inputs)), strict=True)
        largest = max((_difference(index, *pair) for index, pair in enumerate(pairs)), default=0.0)
        differences.append((seed, largest))
    return tuple(differences)


def _difference(index: int, expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        raise _differs(index, f"has shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    difference = torch.where(same, 0.0, (expected.double() - actual.double()).abs())
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
    return torch.randint(0, 2, sizes, generator=generator).to(dtype)


def _is_mask(item: TensorInfo, masks: Collection[str]) -> bool:
    return bool(item.shape) and (item.name in masks or item.dtype == "bool")


def _masked(values: Tensor, generator: torch.Generator, *, hidden_row: bool) -> Tensor:
    """Random places along the last axis are visible: all rows have one, or the first row has none."""
    visible = torch.randint(0, 2, values.shape, generator=generator).bool()
    visible[..., 0] = True
    if hidden_row:
        visible.reshape(-1, visible.shape[-1])[0] = False
    return visible if values.dtype == torch.bool else values.masked_fill(~visible, -torch.inf)

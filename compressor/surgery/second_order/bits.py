"""How many bits each matrix of a model gets within an average, before it is trained in them.

The choice of `compressor.nn.budget`, by the losses of `compressor.nn.bit_losses`, as an export with `precision: mixed`
makes it; measured on the PyTorch model.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import MethodError, UsageError
from compressor.nn.bit_losses import ANCHORS, losses_by_bits
from compressor.nn.budget import Point, allocate
from compressor.nn.integers import block_of
from compressor.surgery.second_order.by_name import RowsByName, nearest, rounded_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.nn.integers import Rows

CHOICES = (16, 8, 6, 5, 4, 3, 2)
"""From the most exact; 16 is float16."""
_HALF_BYTES = 2
_BATCHES = 4
"""On which the many small matrices of convolutions are measured."""


def choose_bits(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, ...]],
    names: Sequence[str],
    average: float,
    block: int,
    *,
    untrained: Sequence[str] = (),
) -> dict[str, int]:
    """Bits of each matrix, `untrained` ones included.

    Args:
        model: On the CPU, in evaluation mode; it is not changed.
        batches: Its inputs, at least one.
        names: Parameters (N, K), one row an output.
        average: Bits of a weight on average over all of them, scales included.
        block: Weights of a row with a common scale in fewer than 8 bits.
        untrained: Parameters (N, ...) that the file holds too: the export gives them their share of the average.

    Raises:
        MethodError: The average is less than the smallest choice.
    """
    tried = rounded_by_name(model, batches, dict.fromkeys(names, ANCHORS), block)
    copied = copy.deepcopy(model)
    exact = [_outputs(copied, inputs) for inputs in batches]
    points = {}
    for name, few in {**dict.fromkeys(names), **dict.fromkeys(untrained, _BATCHES)}.items():
        matrix = copied.get_parameter(name).flatten(1)
        rows = _rows_of(name, matrix, tried, block)
        measured = {bits: _error_with(copied, name, rows(bits), batches[:few], exact[:few]) for bits in ANCHORS}
        losses = losses_by_bits(measured, {bits: _own_error(matrix, rows, bits) for bits in CHOICES})
        points[name] = [Point(stored_bytes(matrix.shape, bits, block), losses[bits]) for bits in CHOICES]
    numbers = sum(copied.get_parameter(name).numel() for name in points)
    try:
        places = allocate(points, int(average * numbers / 8))
    except UsageError as error:
        raise MethodError(f"`bits: {average}` are too few: {error.message} bytes", hint="raise `bits`") from None
    return {name: CHOICES[place] for name, place in places.items()}


def stored_bytes(shape: Sequence[int], bits: int, block: int) -> int:
    """Of a matrix of this shape (N, K) in a file, with its scales in float16."""
    count, columns = shape
    if bits == 8 * _HALF_BYTES:
        return count * columns * _HALF_BYTES
    scales = math.ceil(columns / block_of(bits, columns, block))
    return count * (math.ceil(columns * bits / 8) + scales * _HALF_BYTES)


def _rows_of(name: str, weight: Tensor, tried: RowsByName, block: int) -> Callable[[int], Rows]:
    return lambda bits: tried.get((name, bits)) or nearest(weight, bits, block)


def _own_error(weight: Tensor, rows: Callable[[int], Rows], bits: int) -> float:
    exact = weight.detach().double()
    rounded = exact.half().double() if bits == 8 * _HALF_BYTES else torch.from_numpy(rows(bits).weight)
    return float((rounded - exact).square().sum())


@torch.no_grad()
def _error_with(
    model: nn.Module,
    name: str,
    rows: Rows,
    batches: Sequence[tuple[Tensor, ...]],
    exact: Sequence[list[Tensor]],
) -> float:
    """Relative error of the outputs, of the one with the largest, if one matrix is rounded."""
    parameter = model.get_parameter(name)
    before = parameter.clone()
    parameter.copy_(torch.from_numpy(rows.weight).view_as(parameter))
    squares = [[0.0, 0.0] for _ in exact[0]]
    for inputs, wanted in zip(batches, exact, strict=True):
        for sums, made, goal in zip(squares, _outputs(model, inputs), wanted, strict=True):
            sums[0] += float((made - goal).double().square().sum())
            sums[1] += float(goal.double().square().sum())
    parameter.copy_(before)
    return max((math.sqrt(off / size) if size else 0.0 for off, size in squares), default=0.0)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [tensor for tensor in _flat(model(*inputs)) if tensor.is_floating_point()]


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [tensor for item in value for tensor in _flat(item)] if isinstance(value, (tuple, list)) else []

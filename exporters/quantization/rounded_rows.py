"""Products of integers with a scale for each row of the other side, as a step file has it: one position, one scale.

`DynamicQuantizeLinear` has one scale for a tensor, so a position of a whole sequence is rounded by what the others are.
With a scale for each row a file of whole sequences computes what its step file does, to the last bit of the integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from compressor.onnx_graphs.builder import Builder

_FLOAT, _UINT8 = 1, 2
_LARGEST = 255.0
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMax takes its axes as an input."""


def product(
    do: Builder, x: ir.Value, weight: Sequence[ir.Value], integers: NDArray[Any], opset: int
) -> tuple[ir.Value, ir.Value]:
    """X @ weight in integers.

    A row is rounded as `DynamicQuantizeLinear` rounds a tensor of this row alone.

    Args:
        do: Gets the operators.
        x: (..., K).
        weight: Bytes (K, N), and their zero point if they have one.
        integers: What the bytes stand for.
        opset: Of the graph.

    Returns:
        The sums in float (..., N), and the scale of each row (..., 1) by which they are multiplied.
    """
    zero, one, largest = (do.constant(np.array(number, np.float32)) for number in (0.0, 1.0, _LARGEST))
    high = do("Max", [_reduced(do, "ReduceMax", x, opset), zero])
    low = do("Min", [_reduced(do, "ReduceMin", x, opset), zero])
    range_ = do("Div", [do("Sub", [high, low]), largest])
    scale = do("Where", [do("Equal", [range_, zero]), one, range_])
    point = do("Clip", [do("Round", [do("Div", [do("Neg", [low]), scale])]), zero, largest])
    rounded = do("Clip", [do("Add", [do("Round", [do("Div", [x, scale])]), point]), zero, largest])
    bytes_, *zeros = weight
    points = [None, *zeros] if zeros else []
    total = do("MatMulInteger", [do("Cast", [rounded], to=_UINT8), bytes_, *points])
    columns = do.constant(integers.astype(np.int64).sum(axis=0).astype(np.float32))  # (N,)
    return do("Sub", [do("Cast", [total], to=_FLOAT), do("Mul", [point, columns])]), scale


def _reduced(do: Builder, operator: str, x: ir.Value, opset: int) -> ir.Value:
    if opset >= _AXES_ARE_INPUTS:
        return do(operator, [x, do.integers(-1)], keepdims=1)
    return do(operator, [x], axes=[-1], keepdims=1)

"""Integers of 2 to 6 bits as bytes, and the operators that make numbers of them again.

A matrix is cut into planes of 4, 2 and 1 bits, whose values fill bytes without a gap. They are taken apart by division,
which every runtime has, in front of all other operators and from constants only: what folds constants (ONNX Runtime
does) unpacks once, when it loads the file, and then runs as if it held the numbers themselves. `DequantizeLinear` of
opset 21 has 4 bits too, but ONNX Runtime 1.32 does not fold it: every run unpacks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from compressor.onnx_graphs.builder import Builder

    Bytes = NDArray[np.uint8]

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}
"""Bits of an integer -> bits of its planes, from the lowest ones."""
_FLOAT = 1
"""The type float32, as Cast wants it."""


def pack(values: NDArray[np.int8], bits: int) -> dict[int, Bytes]:
    """Bits of a plane -> its bytes (R, W), one row for each of the values (R, K); W is K * plane / 8, rounded up.

    With p bits in a plane a row is padded to n = 8 / p * W values; its halves are joined, v[j] + 2^p * v[n / 2 + j],
    until a value has 8 bits.
    """
    shifted, low, planes = values.astype(np.int16) + (1 << (bits - 1)), 0, {}
    for plane in PLANES[bits]:
        part = (shifted >> low) & ((1 << plane) - 1)
        part = np.pad(part, ((0, 0), (0, -part.shape[1] % (8 // plane))))
        width = plane
        while width < 8:
            half = part.shape[1] // 2
            part = part[:, :half] | part[:, half:] << width
            width *= 2
        planes[plane] = np.ascontiguousarray(part.astype(np.uint8))
        low += plane
    return planes


def packed_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of `rows` times `columns` integers."""
    return sum(rows * -(-columns * plane // 8) for plane in PLANES[bits])


def unpack(
    do: Builder, planes: Mapping[int, ir.Value], columns: int, bits: int, number: Callable[[float], ir.Value]
) -> ir.Value:
    """The integers (..., K) as float32.

    Args:
        do: Gets the operators.
        planes: Bits of a plane -> uint8 (..., W), as `pack` makes them.
        columns: K.
        bits: Of an integer.
        number: Gives a constant of float32.
    """
    total, low = number(-float(1 << (bits - 1))), 0
    for plane in PLANES[bits]:
        part = _apart(do, do("Cast", [planes[plane]], to=_FLOAT), plane, number)
        if columns * plane % 8:
            part = do("Slice", [part, do.integers(0), do.integers(columns), do.integers(-1)])
        if low:
            part = do("Mul", [part, number(float(1 << low))])
        total, low = do("Add", [part, total]), low + plane
    return total


def _apart(do: Builder, value: ir.Value, plane: int, number: Callable[[float], ir.Value]) -> ir.Value:
    """Bytes (..., W) as values of so many bits (..., 8 / plane * W)."""
    width = 8
    while width > plane:
        width //= 2
        base = number(float(1 << width))
        high = do("Floor", [do("Div", [value, base])])  # a quotient that is whole is exact
        value = do("Concat", [do("Sub", [value, do("Mul", [high, base])]), high], axis=-1)
    return value

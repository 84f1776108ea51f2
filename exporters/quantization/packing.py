"""Integers of 2 to 6 bits as bytes, and the operators that make numbers of them again.

A matrix is cut into planes of 4, 2 and 1 bits, whose values fill bytes without a gap. What a byte stands for is looked
up in a list of all bytes, which is computed too, by operators that every runtime has. All of it comes from constants,
so what folds constants (ONNX Runtime does) unpacks once, when it loads the file, and then runs as if it held the
numbers themselves. ONNX Runtime holds every step until it knows the last one, so steps are few, and as many as possible
are of bytes, of which there are fewer than numbers. `DequantizeLinear` of opset 21 has 4 bits too, but ONNX Runtime
1.32 does not fold it: every run unpacks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from compressor.onnx_graphs.builder import Builder

    Bytes = NDArray[np.uint8]

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}
"""Bits of an integer -> bits of its planes, from the lowest ones."""
_FLOAT, _INT32 = 1, 6
"""Types, as Cast wants them."""


def pack(values: NDArray[np.int8], bits: int) -> dict[int, Bytes]:
    """Bits of a plane -> its bytes (R, W), one row for each of the values (R, K); W is K * plane / 8, rounded up.

    A byte holds the next 8 / plane values of a row, the first of them in its lowest bits.
    """
    shifted, low, planes = values.astype(np.int16) + (1 << (bits - 1)), 0, {}
    for plane in PLANES[bits]:
        part = ((shifted >> low) & ((1 << plane) - 1)).astype(np.uint8)
        count = 8 // plane
        part = np.pad(part, ((0, 0), (0, -part.shape[1] % count))).reshape(len(part), -1, count)
        planes[plane] = np.bitwise_or.reduce(part << (plane * np.arange(count, dtype=np.uint8)), axis=2)
        low += plane
    return planes


def packed_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of `rows` times `columns` integers."""
    return sum(rows * -(-columns * plane // 8) for plane in PLANES[bits])


class Lists:
    """What bytes stand for, in front of what reads it; each list is built once, from the digits of all indices."""

    def __init__(self, do: Builder, number: Callable[[float], ir.Value], widths: Iterable[int]) -> None:
        """Nothing is built yet.

        Args:
            do: Gets the operators.
            number: Gives a constant of float32.
            widths: Bits of the integers that lists may be asked for.
        """
        self._do, self._number = do, number
        self._digits = max((_index_bits(bits) for bits in widths), default=8)
        self._all: ir.Value | None = None
        self._known: dict[int, tuple[ir.Value, ir.Value | None]] = {}

    def of(self, bits: int) -> tuple[ir.Value, ir.Value | None]:
        """For integers of so many bits.

        Returns:
            The numbers float32 (I, n) in a byte of the first plane, at an index that has this byte as its lowest 8 bits
            and what the second plane has of these numbers above them; and int32 (I, m), for a byte of the second plane,
            what stands above each of the m bytes of the first beside it: None if there is no second.
        """
        if bits not in self._known:
            self._known[bits] = self._built(bits)
        return self._known[bits]

    def _built(self, bits: int) -> tuple[ir.Value, ir.Value | None]:
        first, *others = PLANES[bits]
        count = 8 // first
        weights = np.zeros((count, self._digits), np.float32)
        for plane, start, low in zip(PLANES[bits], (0, 8), (0, first), strict=False):
            for place in range(count):
                weights[place, start + place * plane :][:plane] = 1 << low + np.arange(plane)
        numbers = self._do("Add", [self._sums(weights), self._number(-float(1 << (bits - 1)))])
        if not others:
            return numbers, None
        above = count * others[0]
        weights = np.zeros((8 // above, self._digits), np.float32)
        for place in range(8 // above):
            weights[place, place * above :][:above] = 1 << 8 + np.arange(above)
        return numbers, self._do("Cast", [self._sums(weights)], to=_INT32)

    def _sums(self, weights: NDArray[np.float32]) -> ir.Value:
        """Of each index (I,) sums (I, n) of its digits times weights (n, digits); exact, as all are small integers.

        Not by a product of matrices: that would count among those of the model.
        """
        do, number = self._do, self._number
        if self._all is None:
            count = do("Range", [number(0.0), number(float(1 << self._digits)), number(1.0)])
            places = do.constant(np.float32(2) ** np.arange(self._digits, dtype=np.float32))
            shifted = do("Floor", [do("Div", [do("Unsqueeze", [count, do.integers(1, 2)]), places])])
            higher = do("Floor", [do("Div", [shifted, number(2.0)])])
            self._all = do("Sub", [shifted, do("Mul", [higher, number(2.0)])])
        weighted = do("Mul", [self._all, do.constant(weights, "q.l")])
        return do("ReduceSum", [weighted, do.integers(-1)], keepdims=0)


def _index_bits(bits: int) -> int:
    """Of an index into the numbers in a byte of the first plane."""
    first, *others = PLANES[bits]
    return 8 + sum(8 // first * plane for plane in others)


@dataclass(frozen=True)
class Layout:
    """How the numbers of rows (R, K) in few bits stand in a file, and come out of it: by block and byte if they can.

    Then no number has to be moved before it meets its scale.
    """

    columns: int
    block: int
    """Numbers of a row with a common scale."""
    bits: int

    @property
    def fits(self) -> bool:
        """Whether blocks are whole, and made of whole bytes."""
        block = min(self.block, self.columns)
        return self.columns % block == 0 and block % (8 // PLANES[self.bits][-1]) == 0

    @property
    def in_bytes(self) -> tuple[int, ...]:
        """The axes of what was unpacked behind rows and groups: bytes, and the numbers in them."""
        first, *others = PLANES[self.bits]
        return -1, *(first // plane for plane in others), 8 // first

    def shaped(self, planes: Mapping[int, Bytes]) -> dict[int, Bytes]:
        """Planes (R, W) as the file holds them: (R, groups, bytes) if they fit.

        The first of two has a further axis then: its bytes beside one of the second.
        """
        if not self.fits:
            return dict(planes)
        groups = self.columns // min(self.block, self.columns)
        last = PLANES[self.bits][-1]
        count = planes[last].shape[1] // groups
        return {
            plane: array.reshape(len(array), groups, count, *([] if plane == last else [-1]))
            for plane, array in planes.items()
        }

    def unpack(self, do: Builder, lists: Lists, planes: Mapping[int, ir.Value], lead: int | ir.Value) -> ir.Value:
        """The integers as float32, (..., K) or in the shape of their bytes and an axis more.

        Args:
            do: Gets the operators.
            lists: What bytes stand for.
            planes: Of all rows or some, as `shaped` has them.
            lead: The number of rows; or what has the shape of those that are there.
        """
        numbers, which = lists.of(self.bits)
        first, last = PLANES[self.bits][0], PLANES[self.bits][-1]
        size = -(-self.columns * first // 8)
        index = do("Cast", [planes[first]], to=_INT32)
        if which is not None:
            above = do("Gather", [which, do("Cast", [planes[last]], to=_INT32)])
            there = -(-self.columns * last // 8) * first // last
            index = do("Add", [index, above if self.fits else self._row(do, above, lead, there, size)])
        found = do("Gather", [numbers, index])
        return found if self.fits else self._row(do, found, lead, size * 8 // first, self.columns)

    def scales(self, do: Builder, scale: ir.Value) -> ir.Value:
        """Scales of groups (..., groups), to be multiplied with what fits and was unpacked."""
        return do("Unsqueeze", [scale, do.integers(*range(-1 - len(PLANES[self.bits]), 0))])

    def flat(self, do: Builder, value: ir.Value, lead: int | ir.Value, size: int | None = None) -> ir.Value:
        """All axes behind those of `lead` as one, of K numbers or `size`."""
        last = self.columns if size is None else size
        if isinstance(lead, int):
            return do("Reshape", [value, do.integers(lead, last)])
        return do("Reshape", [value, do("Concat", [do("Shape", [lead]), do.integers(last)], axis=0)])

    def _row(self, do: Builder, value: ir.Value, lead: int | ir.Value, there: int, size: int) -> ir.Value:
        """The last axes of bytes that hold `there` numbers of a row as one of the first `size` of them."""
        whole = self.flat(do, value, lead, there)
        return whole if there == size else do("Slice", [whole, do.integers(0), do.integers(size), do.integers(-1)])

"""Weights in 8 and fewer bits, symmetric: a weight is about scale * integer, with one scale a channel or block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

BLOCK = 32
"""Weights of a row with a common scale in fewer than 8 bits, unless another number is asked for."""
_ZERO_OF_4_BITS = 8
_FEW = 6
"""Weights of a block that are looked at first."""
_PIECE = 1 << 20
"""Weights whose temporary arrays are in memory together: a table may be half of a model."""


def largest(bits: int) -> int:
    """The largest integer; symmetric: -128 and -8 are not used, so that a weight and its negative round alike."""
    return (1 << (bits - 1)) - 1


@dataclass(frozen=True)
class Rounded:
    """An array in 8 bits with one scale for every index of its channel axes."""

    values: NDArray[np.int8]
    scale: Floats
    """Of the shape of `values`, with size 1 on every axis that is not a channel axis."""

    @property
    def weight(self) -> Floats:
        """What the integers stand for, of the array's shape."""
        return np.multiply(self.values, self.scale, dtype=np.float32)  # no copy of the integers


def to_8_bits(weight: NDArray[Any], channels: tuple[int, ...]) -> Rounded:
    """Round to the nearest of -127 ... 127 times scale = max |weight| / 127 over all axes but `channels`.

    The largest rounding error is scale / 2, and 0.05 % of the largest weight, since scales are numbers of float16. A
    channel of zeros has scale 1.
    """
    scale = _scale(weight, tuple(axis for axis in range(weight.ndim) if axis not in channels), 8)
    return Rounded(to_integers(weight, scale, 8), scale)


def to_integers(weight: NDArray[Any], scale: Floats, bits: int) -> NDArray[np.int8]:
    """The nearest integers of weight / scale, clipped."""
    return np.clip(np.rint(weight / scale), -largest(bits), largest(bits)).astype(np.int8)


def _scale(weight: NDArray[Any], over: tuple[int, ...], bits: int) -> Floats:
    """That of the largest weight over some axes, which stay with size 1."""
    return usable_scale(np.abs(weight).max(axis=over, keepdims=True), bits)


def usable_scale(peak: NDArray[Any], bits: int) -> Floats:
    """Scales by which the largest integer is |weight| = `peak`; 1 for a peak of 0.

    They are numbers of float16 if these are normal, so that they can be stored as such.
    """
    peak = peak.astype(np.float32)
    scale = np.where(peak > 0, peak / np.float32(largest(bits)), np.float32(1)).astype(np.float32)
    low, high = np.finfo(np.float16).smallest_normal, np.finfo(np.float16).max
    inside = (scale >= low) & (scale <= high)
    half = np.where(inside, scale, np.float32(1)).astype(np.float16)
    return np.where(inside, half.astype(np.float32), scale).astype(np.float32)


def as_stored(scale: Floats) -> NDArray[Any]:
    """Scales as a file holds them: float16 if that is exact."""
    with np.errstate(over="ignore"):  # a scale beyond the largest half stays as it is
        half = scale.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), scale) else scale


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix (N, K) in fewer bits."""

    values: NDArray[np.int8]
    """(N, K)"""
    scale: Floats
    """(N, groups): one for each `block` values of a row, the last of which may be fewer."""
    block: int

    @property
    def scale_of_each(self) -> Floats:
        """That of each weight (N, K)."""
        return np.repeat(self.scale, self.block, axis=1)[:, : self.values.shape[1]]

    @property
    def weight(self) -> NDArray[np.float64]:
        """What the integers stand for (N, K)."""
        return self.values.astype(np.float64) * self.scale_of_each

    def in_float32(self) -> Floats:
        """The same in float32 (N, K), made piece by piece."""
        whole = np.empty(self.values.shape, np.float32)
        for place in pieces(*self.values.shape):
            part = Rows(self.values[place], self.scale[place], self.block)
            np.multiply(part.values, part.scale_of_each, out=whole[place], dtype=np.float32)
        return whole


def pieces(count: int, columns: int) -> Iterator[slice]:
    """Slices of the rows (N, K) of a matrix, each of about as many weights as may be in memory in several copies."""
    step = max(1, _PIECE // max(1, columns))
    for start in range(0, max(count, 1), step):
        yield slice(start, min(start + step, count))


def block_of(bits: int, columns: int, block: int = BLOCK) -> int:
    """Weights of a row (K,) with a common scale: all of them in 8 bits."""
    return columns if bits == 8 else block


def rows_to_nearest(weight: NDArray[Any], bits: int, block: int) -> Rows:
    """Round each weight of (N, K) on its own: in 8 bits with one scale a row, as `to_8_bits` does.

    A block that is a scale times integers already keeps these, whatever its largest integer is: steps that were
    learned in training clip, so that max |weight| says nothing of them.

    Args:
        weight: One row an output.
        bits: 8 or fewer.
        block: Weights of a row with a common scale; K for one scale a row.
    """
    parts = [_to_nearest(weight[place], bits, block) for place in pieces(*weight.shape)]
    if len(parts) == 1:
        return parts[0]
    return Rows(np.concatenate([part.values for part in parts]), np.concatenate([part.scale for part in parts]), block)


def _to_nearest(weight: NDArray[Any], bits: int, block: int) -> Rows:
    count, columns = weight.shape
    padded = np.pad(weight.astype(np.float32), ((0, 0), (0, -columns % block))).reshape(count, -1, block)
    scale = _exact_scale(padded, usable_scale(np.abs(padded).max(2), bits), bits)
    each = np.repeat(scale, block, axis=1)[:, :columns]
    return Rows(to_integers(weight.astype(np.float32), each, bits), scale, block)


def _exact_scale(blocks: Floats, usual: Floats, bits: int) -> Floats:
    """Scales (N, G) by which blocks (N, G, block) are integers to the last bit, the usual ones for all others."""
    peak = np.abs(blocks).max(2)
    rows, groups = np.nonzero(~_on_grid(blocks, usual, bits))  # zeros are on any grid
    scale = usual.copy()
    for integer in range(largest(bits) - 1, 0, -1):
        if not len(rows):
            break
        tried = (peak[rows, groups] / np.float32(integer)).astype(np.float32)
        # A few weights refuse most of it, before the others are looked at.
        fits = _on_grid(blocks[rows, groups, :_FEW], tried, bits)
        fits[fits] = _on_grid(blocks[rows[fits], groups[fits]], tried[fits], bits)
        scale[rows[fits], groups[fits]] = tried[fits]
        rows, groups = rows[~fits], groups[~fits]
    return scale


def _on_grid(blocks: Floats, scale: Floats, bits: int) -> NDArray[np.bool_]:
    """Whether all weights (..., block) are integers times a scale (...) that float16 holds."""
    stored = usable_scale(scale * np.float32(largest(bits)), bits)
    integers = np.rint(blocks / stored[..., None])
    within = (np.abs(integers) <= largest(bits)).all(-1)
    exact: NDArray[np.bool_] = within & (integers * stored[..., None] == blocks).all(-1) & (stored == scale)
    return exact


def in_blocks(rows: Rows) -> NDArray[np.uint8]:
    """4 bits (N, blocks, block / 2) as `MatMulNBits` reads them: two values and 8 a byte, the first in the low half."""
    count, columns = rows.values.shape
    padded = np.pad(rows.values, ((0, 0), (0, -columns % rows.block))).reshape(count, -1, rows.block)
    shifted = (padded + _ZERO_OF_4_BITS).astype(np.uint8)
    return np.ascontiguousarray(shifted[..., ::2] | (shifted[..., 1::2] << 4))

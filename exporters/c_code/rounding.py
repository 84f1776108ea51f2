"""Weights in 8 bits with a scale for each row, or in 4 bits with one for each block of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.nn.integers import block_of, rows_to_nearest
from exporters.c_code.inner_products import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compressor.surgery.second_order.table import RowTable
    from exporters.c_code.product_kernels import Activations


class Rounding:
    """The integers and scales of a matrix, those of a table if it has the row, else to the nearest."""

    def __init__(self, table: RowTable | None, bits: int = 8, activations: Activations = "float32") -> None:
        """To 8 or 4 bits.

        Args:
            table: Rows that are rounded already, by second order; None if there are none.
            bits: Of a weight.
            activations: What the inputs of products become.
        """
        self._table = table
        self.bits = bits
        self.activations: Activations = activations

    def __call__(self, matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Of a matrix (N, K): its integers (N, K) and scales (N, G), G = 1 with 8 bits."""
        weight = np.ascontiguousarray(matrix, np.float32)
        plain = rows_to_nearest(weight, self.bits, block_of(self.bits, weight.shape[1], BLOCK))
        values, scales = plain.values.copy(), plain.scale.copy()
        for index, row in enumerate(weight):
            known = None if self._table is None else self._table.find(row, self.bits)
            if known is not None and known[1].size == scales.shape[1]:
                values[index], scales[index] = known[0], known[1].ravel()
        return values, scales


def packed(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Integers (N, K) from -8 to 7, two in a byte (N, 4 ceil(K / 8)), as the C functions read them.

    Each is stored + 8. A word holds 8: the first four in the low halves of its bytes, the others in the high ones.
    """
    words = np.pad(values, ((0, 0), (0, -values.shape[1] % 8))).astype(np.int16).reshape(len(values), -1, 2, 4) + 8
    return (words[:, :, 0] | words[:, :, 1] << 4).astype(np.uint8).reshape(len(values), -1)


def unpacked(data: NDArray[Any], columns: int) -> NDArray[np.int8]:
    """The integers (N, K) again."""
    words = data.reshape(len(data), -1, 4)
    values = np.stack([words & 15, words >> 4], axis=2).reshape(len(data), -1)
    return values[:, :columns].astype(np.int8) - 8

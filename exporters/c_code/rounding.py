"""Weights in 8 bits: a scale for each row, w = scale * q."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.quantization.second_order.table import RowTable

_HIGHEST = 127
_BITS = 8


class Rounding:
    """The integers and scales of a matrix, those of a table if it has the row, else to the nearest."""

    def __init__(self, table: RowTable | None) -> None:
        """Of rows that are rounded already, by second order; None if there are none."""
        self._table = table

    def __call__(self, matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Of a matrix (N, K): q (N, K) and scales (N,)."""
        rows = [self._row(row) for row in np.ascontiguousarray(matrix, np.float32)]
        return np.stack([row for row, _ in rows]), np.array([scale for _, scale in rows], np.float32)

    def _row(self, row: NDArray[Any]) -> tuple[NDArray[np.int8], float]:
        known = None if self._table is None else self._table.find(row, _BITS)
        if known is not None and known[1].size == 1:
            return known[0], float(known[1].ravel()[0])
        scale = max(float(np.abs(row).max()), float(np.finfo(np.float32).tiny)) / _HIGHEST
        return np.clip(np.rint(row / np.float32(scale)), -_HIGHEST, _HIGHEST).astype(np.int8), scale

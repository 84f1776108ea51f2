"""The matrices of a graph and what becomes of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from exporters.quantization.rounding import Blocks, Rounded, as_stored, to_4_bits, to_8_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.second_order.table import RowTable


class Weights:
    """The matrices of a graph, rounded as their forms want it; nothing is rounded twice."""

    def __init__(
        self, proto: onnx.ModelProto, matrices: Sequence[Matrix], block: int, table: RowTable | None = None
    ) -> None:
        """Find their values.

        Args:
            proto: The graph.
            matrices: Those of it that may be rounded.
            block: Of 4 bits.
            table: Rows that are rounded already; others are rounded to the nearest.
        """
        self.matrices = {matrix.name: matrix for matrix in matrices}
        self.arrays: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in proto.graph.initializer
            if tensor.name in self.matrices
        }
        self._block, self._table = block, table
        self._listed: dict[tuple[str, int], float] = {}
        self._low: dict[str, Rounded] = {}
        self._blocks: dict[tuple[str, int], Blocks] = {}

    def low(self, name: str) -> Rounded:
        """A matrix in 8 bits, of its own shape."""
        if name not in self._low:
            array, channels = self.arrays[name], self.matrices[name].channels
            self._low[name] = self._by_table(name, array, channels, to_8_bits(array, channels))
        return self._low[name]

    def listed(self, name: str, form: Form) -> float:
        """The part of a matrix' rows that the table has, 0 to 1, if it is in this form."""
        four = form == "int4" and self.matrices[name].is_product
        return 0.0 if form in ("float", "half") else self._listed.get((name, 4 if four else 8), 0.0)

    def blocks(self, name: str, direction: int) -> Blocks:
        """A matrix in 4 bits as (K, N); of a recurrent node one direction of it."""
        key = (name, direction)
        if key not in self._blocks:
            array = self.arrays[name]
            matrix = self.multiplied(name, array, direction)
            self._blocks[key] = self._blocks_by_table(name, matrix, to_4_bits(matrix, self._block))
        return self._blocks[key]

    def _by_table(self, name: str, array: NDArray[Any], channels: tuple[int, ...], plain: Rounded) -> Rounded:
        """8 bits, with the rows of the table instead of those rounded to the nearest."""
        if self._table is None or self.matrices[name].is_table:
            return plain
        places = tuple(range(len(channels)))
        rows = np.moveaxis(array, channels, places)
        lead = rows.shape[: len(channels)]
        values = np.moveaxis(plain.values, channels, places).copy()
        scale = np.moveaxis(plain.scale, channels, places).copy()
        known = 0
        for index in np.ndindex(lead):
            entry = self._table.find(rows[index].ravel(), 8)
            if entry is not None:
                known += 1
                values[index], scale[index] = entry[0].reshape(values[index].shape), entry[1][0]
        self._listed[name, 8] = known / max(1, int(np.prod(lead)))
        return Rounded(np.moveaxis(values, places, channels), np.moveaxis(scale, places, channels))

    def _blocks_by_table(self, name: str, matrix: NDArray[Any], plain: Blocks) -> Blocks:
        """The same of 4 bits, for a matrix (K, N)."""
        if self._table is None or self.matrices[name].is_table:
            return plain
        values, scale, known = plain.values.copy(), plain.scale.copy(), 0
        flat = values.reshape(len(values), -1)
        for column, row in enumerate(matrix.T):
            entry = self._table.find(row, 4)
            if entry is not None:
                known += 1
                flat[column, : plain.rows], scale[column, :, 0] = entry
        self._listed[name, 4] = known / max(1, len(values))
        return Blocks(flat.reshape(values.shape), scale, plain.rows)

    def transposed(self, name: str) -> bool:
        """The matrix is stored as (N, K)."""
        return self.matrices[name].channels[-1] == self.arrays[name].ndim - 2

    def multiplied(self, name: str, array: NDArray[Any], direction: int) -> NDArray[Any]:
        """What multiplies from the right (K, N): `array`, in the shape of a matrix or its scale, turned if need be."""
        return array[direction].T if array.ndim == 3 else array.T if self.transposed(name) else array

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""
        array = self.arrays[name]
        if form in ("float", "half"):
            return int(array.nbytes) // (2 if form == "half" else 1)
        if form == "int4" and self.matrices[name].is_product:
            parts = [self.blocks(name, direction) for direction in range(len(array) if array.ndim == 3 else 1)]
            return sum(part.packed.nbytes + as_stored(part.scale).nbytes for part in parts)
        low = self.low(name)
        return int(low.values.nbytes + low.scale.nbytes)

    def restored(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for, in its own shape."""
        if form == "float":
            return self.arrays[name]
        if form == "half":
            return self.arrays[name].astype(np.float16).astype(np.float32)
        if form != "int4" or not self.matrices[name].is_product:
            return self.low(name).weight
        array = self.arrays[name]
        if array.ndim == 3:
            return np.stack([self.blocks(name, direction).weight.T for direction in range(len(array))])
        weight = self.blocks(name, 0).weight
        return weight.T if self.transposed(name) else weight

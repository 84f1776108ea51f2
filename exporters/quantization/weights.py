"""The matrices of a graph and what becomes of their values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.nn.integers import Rounded, Rows, as_stored, block_of, in_blocks, rows_to_nearest, to_8_bits
from exporters.passes import external_data
from exporters.quantization import forms, packing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from compressor.surgery.second_order.table import RowTable
    from exporters.quantization.matrices import Form, Matrix


class Weights:
    """The matrices of a graph, rounded as their forms want it; nothing that is remembered is rounded twice."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        matrices: Sequence[Matrix],
        block: int,
        table: RowTable | None = None,
        folder: Path | None = None,
    ) -> None:
        """Find their values.

        Args:
            proto: The graph.
            matrices: Those of it that may be rounded.
            block: Weights of a row with a common scale in fewer than 8 bits.
            table: Rows that are rounded already; others are rounded to the nearest.
            folder: Of the file of weights that do not lie in the graph itself.
        """
        self.matrices = {matrix.name: matrix for matrix in matrices}
        self.arrays = external_data.Values(
            [tensor for tensor in proto.graph.initializer if tensor.name in self.matrices], folder
        )
        self._block, self._table = block, table
        self._listed: dict[tuple[str, int], float] = {}
        self._low: dict[tuple[str, int], Rounded] = {}
        self._rows: dict[tuple[str, int], Rows] = {}

    @property
    def numbers(self) -> int:
        """Of all matrices together."""
        return sum(math.prod(self.arrays.shape(name)) for name in self.arrays)

    def as_rows(self, name: str) -> NDArray[Any]:
        """A matrix with one row for each output (R, K)."""
        channels = self.matrices[name].channels
        turned = np.moveaxis(self.arrays[name], channels, range(len(channels)))
        return turned.reshape(int(np.prod(turned.shape[: len(channels)])), -1)

    def of_rows(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows (R, K) or scales (R, 1) of a matrix, in the matrix' own order of axes."""
        shape, channels = self.arrays.shape(name), self.matrices[name].channels
        others = [size if rows.shape[1] > 1 else 1 for axis, size in enumerate(shape) if axis not in channels]
        whole = rows.reshape([*(shape[axis] for axis in channels), *others])
        return np.moveaxis(whole, range(len(channels)), channels)

    def rows(self, name: str, bits: int) -> Rows:
        """A matrix in 8 bits with a scale for each row, or in fewer with one for each block of it."""
        if (name, bits) not in self._rows:
            exact = self.as_rows(name)
            plain = rows_to_nearest(exact, bits, block_of(bits, exact.shape[1], self._block))
            self._rows[name, bits] = self._by_table(name, exact, plain, bits)
        return self._rows[name, bits]

    def forget(self, name: str, bits: int | None = None) -> None:
        """Give back the memory of what is known of a matrix, in all bits or some; it is rounded again if asked for."""
        for known in (self._rows, self._low):
            for key in [key for key in known if key[0] == name and bits in (None, key[1])]:
                del known[key]

    def assigned(self, name: str) -> int:
        """The bits that the rows of a matrix were given; 8 if the table knows nothing of them."""
        return (None if self._table is None else self._table.assigned(self.as_rows(name))) or 8

    def low(self, name: str, bits: int = 8) -> Rounded:
        """A matrix in 8 bits, of its own shape; of one that the file stores in fewer, the integers made of those."""
        if (name, bits) not in self._low:
            if bits < 8:
                self._low[name, bits] = to_8_bits(self._in_blocks(name, bits), self.matrices[name].channels)
            else:
                rows = self.rows(name, 8)
                values, scale = (self.of_rows(name, array) for array in (rows.values, rows.scale))
                self._low[name, bits] = Rounded(values, scale)
        return self._low[name, bits]

    def as_scales(self, name: str, bits: int) -> NDArray[Any]:
        """The scales (R, 1) of `low`, one row for each output."""
        scale = self.low(name, bits).scale
        channels = self.matrices[name].channels
        return np.moveaxis(scale, channels, range(len(channels))).reshape(-1, 1)

    def listed(self, name: str, form: Form) -> float:
        """The part of a matrix' rows that the table has, 0 to 1, if it is in this form."""
        return self._listed.get((name, forms.bits(form)), 0.0)

    def _by_table(self, name: str, exact: NDArray[Any], plain: Rows, bits: int) -> Rows:
        """The rows of the table instead of those rounded to the nearest."""
        if self._table is None or self.matrices[name].is_table:
            return plain
        values, scale, known = plain.values.copy(), plain.scale.copy(), 0
        for index, row in enumerate(exact):
            entry = self._table.find(row, bits)
            if entry is not None:
                known += 1
                values[index], scale[index] = entry
        self._listed[name, bits] = known / max(1, len(values))
        return Rows(values, scale, plain.block)

    def _in_blocks(self, name: str, bits: int) -> NDArray[Any]:
        # As exact as in float64, since a product is rounded once, and half of the memory: a table may be the model.
        return self.of_rows(name, self.rows(name, bits).in_float32())

    def transposed(self, name: str) -> bool:
        """The matrix is stored as (N, K)."""
        return self.matrices[name].channels[-1] == len(self.arrays.shape(name)) - 2

    def multiplied(self, name: str, array: NDArray[Any], direction: int) -> NDArray[Any]:
        """What multiplies from the right (K, N): `array`, in the shape of a matrix or its scale, turned if need be."""
        return array[direction].T if array.ndim == 3 else array.T if self.transposed(name) else array

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""
        if form in ("float", "half"):
            return math.prod(self.arrays.shape(name)) * (2 if form == "half" else 4)
        rows = self.rows(name, forms.bits(form))
        scales = as_stored(rows.scale).nbytes
        if form == "int4":
            return int(in_blocks(rows).nbytes + scales)
        if not forms.is_packed(form):
            return int(rows.values.nbytes + rows.scale.nbytes)
        more = as_stored(self.low(name, forms.bits(form)).scale).nbytes if forms.arithmetic(form) == "integer" else 0
        count, columns = rows.values.shape
        return int(packing.packed_bytes(count, columns, forms.bits(form)) + scales + more)

    def restored(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for, in its own shape."""
        if form == "float":
            return self.arrays[name]
        if form == "half":
            return self.arrays[name].astype(np.float16).astype(np.float32)
        if form == "int4" or (forms.is_packed(form) and forms.arithmetic(form) == "float"):
            return self._in_blocks(name, forms.bits(form))
        return self.low(name, forms.bits(form)).weight

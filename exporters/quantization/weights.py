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


class Weights:
    """The matrices of a graph, rounded as their forms want it; nothing is rounded twice."""

    def __init__(self, proto: onnx.ModelProto, matrices: Sequence[Matrix], block: int) -> None:
        """`block` is that of 4 bits."""
        self.matrices = {matrix.name: matrix for matrix in matrices}
        self.arrays: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in proto.graph.initializer
            if tensor.name in self.matrices
        }
        self._block = block
        self._low: dict[str, Rounded] = {}
        self._blocks: dict[tuple[str, int], Blocks] = {}

    def low(self, name: str) -> Rounded:
        """A matrix in 8 bits, of its own shape."""
        if name not in self._low:
            self._low[name] = to_8_bits(self.arrays[name], self.matrices[name].channels)
        return self._low[name]

    def blocks(self, name: str, direction: int) -> Blocks:
        """A matrix in 4 bits as (K, N); of a recurrent node one direction of it."""
        key = (name, direction)
        if key not in self._blocks:
            array = self.arrays[name]
            self._blocks[key] = to_4_bits(self.multiplied(name, array, direction), self._block)
        return self._blocks[key]

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

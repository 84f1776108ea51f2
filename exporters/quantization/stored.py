"""What a file holds of its matrices, and the operators that make numbers of it again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.nn.integers import as_stored
from exporters.quantization import forms, packing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from compressor.nn.integers import Rows
    from compressor.onnx_graphs.builder import Builder
    from exporters.quantization.matrices import Form
    from exporters.quantization.weights import Weights

_FLOAT, _UINT8, _INT8 = 1, 2, 3
"""Types, as Cast wants them."""
MIDDLE = 128
"""What unsigned bytes have in place of 0."""


def unsigned(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The same integers around `MIDDLE`."""
    return (values.astype(np.int16) + MIDDLE).astype(np.uint8)


class Stored:
    """The matrices of a graph in front of all its nodes, or those of a Scan's body in front of that body's.

    Every value comes from constants by operators of ONNX itself, so that a runtime which folds constants computes it
    once, when it loads the file; ONNX Runtime folds those of a body too.
    """

    def __init__(self, do: Builder, weights: Weights, chosen: Mapping[str, Form], *, moved: bool) -> None:
        """Nothing is built yet.

        Args:
            do: Gets the operators.
            weights: The values.
            chosen: Matrix -> form.
            moved: Matrices whose products are of integers are unsigned bytes around `MIDDLE`.
        """
        self.do, self.weights, self._chosen, self._moved = do, weights, chosen, moved
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._computed: dict[tuple[str, str], ir.Value] = {}

    def constant(self, array: NDArray[Any], name: str) -> ir.Value:
        """An initializer; the same one for the same numbers, however often they are used.

        A matrix that is already there the other way round is turned by a Transpose.
        """
        key, known = _content(array), self._constants
        if key not in known and array.ndim == 2 and (turned := known.get(_content(array.T))) is not None:
            known[key] = self.do("Transpose", [turned], perm=[1, 0])
        if key not in known:
            known[key] = self.do.constant(array, name)
        return known[key]

    def number(self, value: float) -> ir.Value:
        """A constant of float32."""
        return self.constant(np.array(value, np.float32), "q.n")

    def scale(self, array: NDArray[Any], name: str) -> ir.Value:
        """Scales in float32, stored as float16 if that holds them exactly."""
        stored = as_stored(array)
        constant = self.constant(stored, f"{name}.scale")
        if stored.dtype == np.float32:
            return constant
        return self._once(str(constant.name), "float", lambda: self.do("Cast", [constant], to=_FLOAT))

    def half(self, array: NDArray[Any], name: str) -> ir.Value:
        """An array in float16."""
        return self.constant(array.astype(np.float16), f"{name}.float16")

    def planes(self, name: str) -> dict[int, ir.Value]:
        """The bytes of a matrix in fewer than 8 bits, by the bits of a value in them."""
        bits = forms.bits(self._chosen[name])
        planes = packing.pack(self.weights.rows(name, bits).values, bits)
        return {plane: self.constant(array, f"{name}.bits{plane}") for plane, array in planes.items()}

    def of_each(self, do: Builder, scale: ir.Value, rows: Rows) -> ir.Value:
        """Scales of blocks (..., G) as those of each weight (..., K), or (..., 1) if there is one block."""
        groups, columns = rows.scale.shape[1], rows.values.shape[1]
        if groups == 1:
            return scale
        block = self.constant((np.arange(columns) // rows.block).astype(np.int32), "q.block")
        return do("Gather", [scale, block], axis=-1)

    def is_moved(self, name: str) -> bool:
        """Whether the bytes of a matrix are unsigned, around `MIDDLE`."""
        return self._moved and forms.arithmetic(self._chosen[name]) == "integer"

    def held(self, name: str, values: NDArray[np.int8]) -> NDArray[Any]:
        """Integers of a matrix as the file holds them: signed, or unsigned if it is moved."""
        return unsigned(values) if self.is_moved(name) else values

    def integers(self, name: str) -> ir.Value:
        """The bytes of a matrix, one row for each output (R, K)."""
        bits = forms.bits(self._chosen[name])
        if bits == 8:
            return self.constant(self.held(name, self.weights.rows(name, 8).values), f"{name}.int8")
        return self._once(name, "integers", lambda: self._integers(name, bits))

    def numbers(self, do: Builder, name: str, held: ir.Value) -> ir.Value:
        """Some bytes of a matrix as the integers that they stand for, in float."""
        whole = do("Cast", [held], to=_FLOAT)
        return do("Sub", [whole, self.number(MIDDLE)]) if self.is_moved(name) else whole

    def floats(self, name: str) -> ir.Value:
        """What is multiplied, in float and one row for each output (R, K)."""
        return self._once(name, "floats", lambda: self._floats(name))

    def in_own_shape(self, name: str) -> ir.Value:
        """The same as the operator wants it."""
        return self._once(name, "shaped", lambda: self._in_own_shape(name))

    def turned(self, name: str, rows: ir.Value, direction: int) -> ir.Value:
        """One direction of a matrix (R, K) as (K, N)."""
        shape, do = self.weights.arrays.shape(name), self.do
        if len(shape) == 3 and shape[0] > 1:
            start, stop = direction * shape[1], (direction + 1) * shape[1]
            rows = do("Slice", [rows, do.integers(start), do.integers(stop), do.integers(0)])
        return do("Transpose", [rows], perm=[1, 0])

    def _integers(self, name: str, bits: int) -> ir.Value:
        scale = self.scale(self.weights.as_scales(name, bits), name)
        rounded = self.do("Round", [self.do("Div", [self._unpacked(name, bits), scale])])
        if self.is_moved(name):
            return self.do("Cast", [self.do("Add", [rounded, self.number(MIDDLE)])], to=_UINT8)
        return self.do("Cast", [rounded], to=_INT8)

    def _floats(self, name: str) -> ir.Value:
        form = self._chosen[name]
        bits = forms.bits(form)
        if bits < 8 and forms.arithmetic(form) != "integer":
            return self._unpacked(name, bits)
        return self.do(
            "Mul",
            [
                self.numbers(self.do, name, self.integers(name)),
                self.scale(self.weights.as_scales(name, bits), name),
            ],
        )

    def _unpacked(self, name: str, bits: int) -> ir.Value:
        """A matrix that the file holds in fewer than 8 bits (R, K)."""
        return self._once(name, "unpacked", lambda: self._unpack(name, bits))

    def _unpack(self, name: str, bits: int) -> ir.Value:
        rows = self.weights.rows(name, bits)
        values = packing.unpack(self.do, self.planes(name), rows.values.shape[1], bits, self.number)
        return self.do("Mul", [values, self.of_each(self.do, self.scale(rows.scale, name), rows)])

    def _in_own_shape(self, name: str) -> ir.Value:
        do, shape, channels = self.do, self.weights.arrays.shape(name), self.weights.matrices[name].channels
        if self._chosen[name] == "half":
            return do("Cast", [self.half(self.weights.arrays[name], name)], to=_FLOAT)
        rows = self.floats(name)
        if len(shape) == 2:
            return do("Transpose", [rows], perm=[1, 0]) if channels == (1,) else rows
        return do("Reshape", [rows, do.integers(*shape)])  # the channels come first

    def _once(self, name: str, what: str, build: Any) -> ir.Value:
        if (name, what) not in self._computed:
            self._computed[name, what] = build()
        return self._computed[name, what]


def _content(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """What two arrays have in common that are the same."""
    whole = np.ascontiguousarray(array)
    return str(whole.dtype), whole.shape, hashlib.sha256(whole.tobytes()).digest()

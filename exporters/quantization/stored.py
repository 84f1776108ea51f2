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

_FLOAT = 1
"""The type float32, as Cast wants it."""
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

    def __init__(
        self, do: Builder, weights: Weights, chosen: Mapping[str, Form], *, moved: bool, outer: Stored | None = None
    ) -> None:
        """Nothing is built yet.

        Args:
            do: Gets the operators.
            weights: The values.
            chosen: Matrix -> form.
            moved: Matrices whose products are of integers are unsigned bytes around `MIDDLE`.
            outer: In front of all nodes, where what several matrices read stands once.
        """
        self.do, self.weights, self._chosen, self._moved = do, weights, chosen, moved
        self._outer = outer
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._computed: dict[tuple[str, str], ir.Value] = {}
        self._zeros: dict[int, ir.Value] = {}
        packed = [forms.bits(form) for form in chosen.values() if forms.is_packed(form)]
        self.lists: packing.Lists = packing.Lists(do, self.number, packed) if outer is None else outer.lists

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

    def layout(self, name: str) -> packing.Layout:
        """How a matrix in fewer than 8 bits stands in the file."""
        bits = forms.bits(self._chosen[name])
        rows = self.weights.rows(name, bits)
        return packing.Layout(rows.values.shape[1], rows.block, bits)

    def planes(self, name: str) -> dict[int, ir.Value]:
        """The bytes of a matrix in fewer than 8 bits, by the bits of a value in them."""
        bits = forms.bits(self._chosen[name])
        planes = self.layout(name).shaped(packing.pack(self.weights.rows(name, bits).values, bits))
        return {plane: self.constant(array, f"{name}.bits{plane}") for plane, array in planes.items()}

    def unpacked(self, do: Builder, name: str, planes: Mapping[int, ir.Value], scale: ir.Value, lead: Any) -> ir.Value:
        """Rows of a matrix in fewer than 8 bits, scaled: (..., K), or as they stand in the file if they fit."""
        layout = self.layout(name)
        values = layout.unpack(do, self.lists, planes, lead)
        if layout.fits:
            return do("Mul", [values, layout.scales(do, scale)])
        return do("Mul", [values, self._of_each(do, scale, self.weights.rows(name, layout.bits))])

    def _of_each(self, do: Builder, scale: ir.Value, rows: Rows) -> ir.Value:
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

    def zeros(self, count: int) -> ir.Value:
        """Zero points of rows."""
        if count not in self._zeros:
            zero = self.constant(np.array(MIDDLE, np.uint8) if self._moved else np.array(0, np.int8), "q.zero")
            self._zeros[count] = self.do("Expand", [zero, self.do.integers(count)])
        return self._zeros[count]

    def _integers(self, name: str, bits: int) -> ir.Value:
        """Bytes made of fewer bits: rounded by the scale of the row as `to_8_bits` does, to the nearest even one."""
        rows, do = len(self.weights.as_rows(name)), self.do
        zeros = (self._outer or self).zeros(rows)
        scale = do("Reshape", [self.scale(self.weights.as_scales(name, bits), name), do.integers(-1)])
        rounded = do("QuantizeLinear", [self._of_all_rows(name, bits), scale, zeros], axis=0)
        return self._flat(name, rounded, rows)

    def _floats(self, name: str) -> ir.Value:
        form = self._chosen[name]
        bits = forms.bits(form)
        if bits < 8 and forms.arithmetic(form) != "integer":
            return self._flat(name, self._of_all_rows(name, bits), len(self.weights.as_rows(name)))
        return self._scaled(name, self.integers(name), turned=False)

    def _scaled(self, name: str, held: ir.Value, *, turned: bool) -> ir.Value:
        """Bytes of a matrix (R, K), or (K, R) if they are turned, as what they stand for."""
        scales = self.weights.as_scales(name, forms.bits(self._chosen[name]))
        scale = self.scale(scales.T if turned else scales, name)
        return self.do("Mul", [self.numbers(self.do, name, held), scale])

    def _of_all_rows(self, name: str, bits: int) -> ir.Value:
        """A matrix that the file holds in fewer than 8 bits, see `unpacked`."""

        def build() -> ir.Value:
            rows = self.weights.rows(name, bits)
            return self.unpacked(self.do, name, self.planes(name), self.scale(rows.scale, name), len(rows.values))

        return self._once(name, "unpacked", build)

    def _flat(self, name: str, value: ir.Value, rows: int) -> ir.Value:
        layout = self.layout(name)
        return layout.flat(self.do, value, rows) if layout.fits else value

    def _in_own_shape(self, name: str) -> ir.Value:
        do, shape, channels = self.do, self.weights.arrays.shape(name), self.weights.matrices[name].channels
        if self._chosen[name] == "half":
            return do("Cast", [self.half(self.weights.arrays[name], name)], to=_FLOAT)
        if len(shape) == 2 and channels == (1,):
            return self._as_columns(name)
        rows = self.floats(name)
        return rows if len(shape) == 2 else do("Reshape", [rows, do.integers(*shape)])  # the channels come first

    def _as_columns(self, name: str) -> ir.Value:
        """A matrix (K, N) whose outputs are its columns: bytes are turned, of which there are fewer than numbers."""
        if forms.bits(self._chosen[name]) == 8:
            return self._scaled(name, self.do("Transpose", [self.integers(name)], perm=[1, 0]), turned=True)
        if not self._is_by_columns(name):
            return self.do("Transpose", [self.floats(name)], perm=[1, 0])
        layout = self.layout(name)
        rows, do = self.weights.rows(name, layout.bits), self.do
        (count, columns), groups = rows.values.shape, rows.scale.shape[1]
        turned = packing.Layout(count, count, layout.bits)  # a row for each input: N numbers, of N scales
        planes = {
            plane: self.constant(array.reshape(groups, -1, *array.shape[2:]), f"{name}.bits{plane}")
            for plane, array in turned.shaped(packing.pack(rows.values.T, layout.bits)).items()
        }
        values = turned.unpack(do, self.lists, planes, columns)
        scale = do("Transpose", [self.scale(rows.scale, name)], perm=[1, 0])
        scale = do("Reshape", [scale, do.integers(groups, 1, *turned.in_bytes)])
        return do("Reshape", [do("Mul", [values, scale]), do.integers(columns, count)])

    def _is_by_columns(self, name: str) -> bool:
        """Whether a matrix of few bits stands in the file as its columns: not if something else reads its rows too."""
        layout, weights = self.layout(name), self.weights
        rows = weights.rows(name, layout.bits)
        if not layout.fits or not packing.Layout(len(rows.values), len(rows.values), layout.bits).fits:
            return False
        if any(use.operator not in ("MatMul", "Gemm") for use in weights.matrices[name].uses):
            return False
        others = (
            weights.rows(other, layout.bits).values
            for other, form in self._chosen.items()
            if (forms.is_packed(form), forms.bits(form)) == (True, layout.bits)
            and weights.matrices[other].channels != (1,)
            and len(weights.as_rows(other)) == len(rows.values)
        )
        return not any(np.array_equal(values, rows.values) for values in others)

    def _once(self, name: str, what: str, build: Any) -> ir.Value:
        if (name, what) not in self._computed:
            self._computed[name, what] = build()
        return self._computed[name, what]


def _content(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """What two arrays have in common that are the same."""
    whole = np.ascontiguousarray(array)
    return str(whole.dtype), whole.shape, hashlib.sha256(whole.tobytes()).digest()

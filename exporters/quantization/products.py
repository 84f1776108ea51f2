"""Matrices of fewer bits in a graph: in float again in front of an operator, or as the right side of a product."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.onnx_graphs.builder import Builder, Names
from exporters.quantization import rounded_rows
from exporters.quantization.rounding import Rounded, as_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.rounding import Blocks
    from exporters.quantization.weights import Weights

    Bias = NDArray[Any] | None

DOMAIN = "com.microsoft"
"""Operators of ONNX Runtime itself."""
_FLOAT = 1
"""The type float32, as Cast wants it."""


class Products:
    """The matrices of one graph in chosen forms."""

    def __init__(
        self, weights: Weights, forms: Mapping[str, Form], names: Names, *, exact: bool, by_row: int = 0
    ) -> None:
        """Nothing is built yet.

        Args:
            weights: The values.
            forms: Matrix -> form, of those that do not stay float.
            names: Those of the graph.
            exact: Products are in float, also for forms whose products are of integers.
            by_row: The opset of the graph if the other side of a product of integers is rounded by a scale for each
                of its rows, a position of a sequence; 0 if by one for all of it.
        """
        self.weights, self.forms, self.names, self.exact, self.by_row = weights, forms, names, exact, by_row
        self.top = self.builder()
        """What comes in front of all nodes."""
        self._floats: dict[str, ir.Value] = {}
        self._zeros: dict[tuple[int, ...], ir.Value] = {}
        self._stored: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._scales: dict[ir.Value, ir.Value] = {}

    def builder(self) -> Builder:
        """An empty builder of nodes that have short names."""
        return Builder(self.names, "quantized.{operator}", node_names=False)

    def form(self, name: str) -> Form:
        """The form of a matrix."""
        return self.forms.get(name, "float")

    def zeros(self, shape: tuple[int, ...]) -> ir.Value:
        """Zero points of 8 bits, one initializer for each shape."""
        if shape not in self._zeros:
            self._zeros[shape] = self.top.constant(np.zeros(shape, np.int8), "quantized.zero")
        return self._zeros[shape]

    def stored(self, array: NDArray[Any], name: str) -> ir.Value:
        """An initializer in front of everything; the same one for the same numbers, however often they are used.

        A matrix that is already there the other way round is turned by a Transpose, which ONNX Runtime computes once.
        """
        key = _content(array)
        if key not in self._stored and array.ndim == 2 and (turned := self._stored.get(_content(array.T))) is not None:
            self._stored[key] = self.top("Transpose", [turned], perm=[1, 0])
        if key not in self._stored:
            self._stored[key] = self.top.constant(array, name)
        return self._stored[key]

    def beside(self, do: Builder, array: NDArray[Any], matrix: str, kind: str) -> ir.Value:
        """An initializer in `do` if its matrix is used in one place only, in front of everything otherwise.

        A Scan is up to a fifth faster if the matrices of its body lie in it.
        """
        once = len(self.weights.matrices[matrix].uses) == 1
        name = f"{matrix}.{kind}"
        return do.constant(array, name) if once else self.stored(array, name)

    def floats(self, name: str) -> ir.Value:
        """A matrix whose form is not float, in float again; it is computed once, in front of everything."""
        if name not in self._floats:
            self._floats[name] = self._dequantized(name)
        return self._floats[name]

    def product(
        self, do: Builder, x: ir.Value, name: str, bias: Bias = None, direction: int = 0, *, one_position: bool = False
    ) -> ir.Value:
        """X (..., K) @ `name` (K, N) + bias by the matrix's form; of a recurrent node its transposed `direction`.

        `one_position`: x is that of one position, so it has one scale also where each position has one of its own.
        """
        form, weights = self.form(name), self.weights
        if form == "int4":
            return self._block_product(do, x, weights.blocks(name, direction), name, bias)
        plain = weights.multiplied(name, weights.arrays[name], direction)
        if form == "float":
            return self._float_product(do, x, self.stored(plain, f"{name}.transposed"), name, bias)
        if form == "half":
            return self._float_product(do, x, self.top("Cast", [self._half(plain, name)], to=_FLOAT), name, bias)
        low = weights.low(name)
        right = Rounded(*(weights.multiplied(name, array, direction) for array in (low.values, low.scale)))
        if form == "integer" and not self.exact:
            return self._integer_product(do, x, right, name, bias, by_row=bool(self.by_row) and not one_position)
        return self._float_product(do, x, self._dequantized_columns(right, name), name, bias)

    def rows(self, do: Builder, name: str, places: ir.Value) -> ir.Value:
        """Rows of a table, each by its own scale: only the rows that are asked for become float."""
        if self.form(name) == "half":
            return do("Cast", [do("Gather", [self._half(self.weights.arrays[name], name), places])], to=_FLOAT)
        low = self.weights.low(name)
        values = do("Gather", [self.stored(low.values, f"{name}.int8"), places])
        stored = as_stored(low.scale)
        scale = do("Gather", [self.stored(stored, f"{name}.scale"), places])
        scale = scale if stored.dtype == np.float32 else do("Cast", [scale], to=_FLOAT)
        return do("Mul", [do("Cast", [values], to=_FLOAT), scale])

    def _half(self, array: NDArray[Any], name: str) -> ir.Value:
        return self.stored(array.astype(np.float16), f"{name}.float16")

    def _dequantized(self, name: str) -> ir.Value:
        top, weights = self.top, self.weights
        if self.form(name) == "half":
            return top("Cast", [self._half(weights.arrays[name], name)], to=_FLOAT)
        matrix, low = weights.matrices[name], weights.low(name)
        if self.form(name) == "int4" and matrix.is_product:
            return self.stored(weights.restored(name, "int4"), f"{name}.float")
        shape, channels = low.values.shape, matrix.channels
        if low.values.ndim == 2 and channels == (1,):
            return self._dequantized_columns(low, name)
        rows = [axis for axis in channels if shape[axis] > 1] or [channels[-1]]
        if len(rows) == 1:
            return self._dequantize(low.values, low.scale, name, rows[0])
        # Two directions: one axis of scales at a time is all that the operator has.
        flat = self._dequantize(low.values.reshape(shape[0] * shape[1], -1), low.scale, name, 0)
        return top("Reshape", [flat, top.integers(*shape)])

    def _dequantize(self, values: NDArray[Any], scale: NDArray[Any], name: str, axis: int) -> ir.Value:
        inputs = [self.stored(values, f"{name}.int8"), self.stored(scale.reshape(-1), f"{name}.scale")]
        return self.top("DequantizeLinear", inputs, axis=axis)

    def _dequantized_columns(self, low: Rounded, name: str) -> ir.Value:
        """A matrix (K, N), stored as (N, K).

        ONNX Runtime fuses a DequantizeLinear right in front of a product with it, to one that rounds its other side
        too; that is what this form is to avoid, and a Transpose between them does.
        """
        return self.top("Transpose", [self._dequantize(low.values.T, low.scale, name, 0)], perm=[1, 0])

    def _block_product(self, do: Builder, x: ir.Value, weight: Blocks, name: str, bias: Bias) -> ir.Value:
        """X @ weight + bias with a weight in 4 bits; x is rounded to 8 bits too unless `exact`, which is slower.

        ONNX Runtime makes a constant of the scales when it loads the file, also for the body of a Scan, if they stand
        outside of that.
        """
        scale, packed = self.scale(weight.scale.reshape(-1), f"{name}.scale"), weight.packed
        product = do(
            "MatMulNBits",
            [x, self.beside(do, packed, name, "int4"), scale],
            domain=DOMAIN,
            K=weight.rows,
            N=packed.shape[0],
            bits=4,
            block_size=weight.values.shape[2],
            accuracy_level=0 if self.exact else 4,
        )
        return self._plus(do, product, bias, name)

    def scale(self, array: NDArray[Any], name: str) -> ir.Value:
        """Scales in float32, stored as float16 if that holds them exactly."""
        stored = as_stored(array)
        constant = self.stored(stored, name)
        if stored.dtype == np.float32:
            return constant
        if constant not in self._scales:
            self._scales[constant] = self.top("Cast", [constant], to=_FLOAT)
        return self._scales[constant]

    def _integer_product(
        self, do: Builder, x: ir.Value, weight: Rounded, name: str, bias: Bias, *, by_row: bool
    ) -> ir.Value:
        """X @ weight + bias with x in 8 bits at one scale for all of it: q(x) and `weight` are multiplied as integers.

        Args:
            do: Gets the operators.
            x: (..., K).
            weight: (K, N), a scale for each of its columns.
            name: Of the weight.
            bias: (N,).
            by_row: Each row of x has a scale of its own.
        """
        if by_row:
            integers = self.beside(do, weight.values, name, "int8")
            sums, rows = rounded_rows.product(do, x, integers, weight.values, self.by_row)
            scales = do("Mul", [rows, self.beside(do, weight.scale.reshape(-1), name, "scale")])
            return self._plus(do, do("Mul", [sums, scales]), bias, name)
        low, scale, zero = do.several("DynamicQuantizeLinear", [x], 3)
        total = do("MatMulInteger", [low, self.beside(do, weight.values, name, "int8"), zero])
        scales = do("Mul", [scale, self.beside(do, weight.scale.reshape(-1), name, "scale")])
        return self._plus(do, do("Mul", [do("Cast", [total], to=_FLOAT), scales]), bias, name)

    def _float_product(self, do: Builder, x: ir.Value, weight: ir.Value, name: str, bias: Bias) -> ir.Value:
        """X @ weight + bias in float; `weight` is (K, N)."""
        return self._plus(do, do("MatMul", [x, weight]), bias, name)

    def _plus(self, do: Builder, product: ir.Value, bias: Bias, name: str) -> ir.Value:
        if bias is None:
            return product
        return do("Add", [product, self.beside(do, bias.astype(np.float32), name, "bias")])


def _content(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """What two arrays have in common that are the same."""
    whole = np.ascontiguousarray(array)
    return str(whole.dtype), whole.shape, hashlib.sha256(whole.tobytes()).digest()

"""Matrices of fewer bits in a graph: in float again in front of an operator, or as the right side of a product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.nn.integers import as_stored, in_blocks
from compressor.onnx_graphs.builder import Builder, Names
from compressor.runtimes.integer_products import saturate
from exporters.quantization import forms, rounded_rows
from exporters.quantization.stored import Stored, unsigned

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.weights import Weights

    Bias = NDArray[Any] | None

DOMAIN = "com.microsoft"
"""Operators of ONNX Runtime itself."""
_FLOAT = 1
"""The type float32, as Cast wants it."""


class Products:
    """The matrices of one graph in chosen forms.

    Where products of unsigned by signed bytes are not exact (`saturate`), matrices whose products are of integers are
    unsigned around 128: the same numbers, and every sum is right.
    """

    def __init__(
        self, weights: Weights, chosen: Mapping[str, Form], names: Names, *, exact: bool, by_row: int = 0
    ) -> None:
        """Nothing is built yet.

        Args:
            weights: The values.
            chosen: Matrix -> form, of those that do not stay float.
            names: Those of the graph.
            exact: Products are in float, also for forms whose products are of integers.
            by_row: The opset of the graph if the other side of a product of integers is rounded by a scale for each
                of its rows, a position of a sequence; 0 if by one for all of it.
        """
        self.weights, self.forms, self.names, self.exact, self.by_row = weights, chosen, names, exact, by_row
        self._moved = saturate()
        self.top = self.builder()
        """What comes in front of all nodes."""
        self._stored = Stored(self.top, weights, chosen, moved=self._moved)
        self._zeros: dict[tuple[int, ...], ir.Value] = {}

    def builder(self) -> Builder:
        """An empty builder of nodes that have short names: unpacking takes many of them."""
        return Builder(self.names, "q", node_names=False)

    def form(self, name: str) -> Form:
        """The form of a matrix."""
        return self.forms.get(name, "float")

    def zeros(self, shape: tuple[int, ...]) -> ir.Value:
        """Zero points of matrices whose products are of integers, one initializer for each shape."""
        if shape not in self._zeros:
            zeros = np.zeros(shape, np.int8)
            self._zeros[shape] = self.top.constant(unsigned(zeros) if self._moved else zeros, "q.zero")
        return self._zeros[shape]

    def floats(self, name: str) -> ir.Value:
        """A matrix whose form is not float, in float again; it is computed once, in front of everything."""
        return self._stored.in_own_shape(name)

    def lstm_integers(self, name: str) -> tuple[ir.Value, ir.Value]:
        """Both directions of an LSTM's matrix as `DynamicQuantizeLSTM` has them: integers (D, K, N), scales (D, N)."""
        stored, top, form = self._stored, self.top, self.form(name)
        low = self.weights.low(name, forms.bits(form))
        if form == "integer":
            integers = stored.constant(stored.held(name, low.values.swapaxes(1, 2)), f"{name}.int8")
        else:
            whole = top("Reshape", [stored.integers(name), top.integers(*low.values.shape)])
            integers = top("Transpose", [whole], perm=[0, 2, 1])
        return integers, stored.scale(low.scale[..., 0], name)

    def product(
        self, do: Builder, x: ir.Value, name: str, bias: Bias = None, direction: int = 0, *, one_position: bool = False
    ) -> ir.Value:
        """X (..., K) @ `name` (K, N) + bias by the matrix's form; of a recurrent node its transposed `direction`.

        `one_position`: x is that of one position, so it has one scale also where each position has one of its own.
        """
        form = self.form(name)
        if form == "int4":
            return self._block_product(do, x, name, bias)
        if forms.arithmetic(form) == "integer" and not self.exact:
            return self._integer_product(do, x, name, bias, direction, by_row=bool(self.by_row) and not one_position)
        return self._plus(do, do("MatMul", [x, self._right(name, direction)]), bias, name)

    def rows(self, do: Builder, name: str, places: ir.Value) -> ir.Value:
        """Rows of a table, each by its own scale: only the rows that are asked for become float."""
        form, stored = self.form(name), self._stored
        if form == "half":
            return do("Cast", [do("Gather", [stored.half(self.weights.arrays[name], name), places])], to=_FLOAT)
        rows = self.weights.rows(name, forms.bits(form))
        kept = as_stored(rows.scale)
        scale = do("Gather", [stored.constant(kept, f"{name}.scale"), places])
        scale = scale if kept.dtype == np.float32 else do("Cast", [scale], to=_FLOAT)
        if forms.is_packed(form):
            planes = {bits: do("Gather", [plane, places]) for bits, plane in stored.planes(name).items()}
            found, layout = stored.unpacked(do, name, planes, scale, places), stored.layout(name)
            return layout.flat(do, found, places) if layout.fits else found
        held = do("Gather", [stored.constant(stored.held(name, rows.values), f"{name}.int8"), places])
        return do("Mul", [stored.numbers(do, name, held), scale])

    def _right(self, name: str, direction: int) -> ir.Value:
        """The right side of a product in float (K, N)."""
        form, stored, weights = self.form(name), self._stored, self.weights
        if form not in ("float", "half"):
            return stored.turned(name, stored.floats(name), direction)
        plain = weights.multiplied(name, weights.arrays[name], direction)
        if form == "float":
            return stored.constant(plain, f"{name}.transposed")
        return self.top("Cast", [stored.half(plain, name)], to=_FLOAT)

    def _block_product(self, do: Builder, x: ir.Value, name: str, bias: Bias) -> ir.Value:
        """X @ weight + bias with a weight in 4 bits; x is rounded to 8 bits too unless `exact`, which is slower.

        ONNX Runtime makes a constant of the scales when it loads the file.
        """
        rows = self.weights.rows(name, 4)
        packed = in_blocks(rows)
        product = do(
            "MatMulNBits",
            [x, self._beside(do, packed, name, "int4"), self._stored.scale(rows.scale.reshape(-1), name)],
            domain=DOMAIN,
            K=rows.values.shape[1],
            N=packed.shape[0],
            bits=4,
            block_size=rows.block,
            accuracy_level=0 if self.exact else 4,
        )
        return self._plus(do, product, bias, name)

    def _integer_product(
        self, do: Builder, x: ir.Value, name: str, bias: Bias, direction: int, *, by_row: bool
    ) -> ir.Value:
        """X @ weight + bias with x in 8 bits at one scale for all of it: q(x) and `weight` are multiplied as integers.

        Args:
            do: Gets the operators.
            x: (..., K).
            name: Of the weight (K, N), which has a scale for each of its columns.
            bias: (N,).
            direction: Of a recurrent layer.
            by_row: Each row of x has a scale of its own.
        """
        form, weights = self.form(name), self.weights
        low = weights.low(name, forms.bits(form))
        values, columns = (weights.multiplied(name, array, direction) for array in (low.values, low.scale))
        alone = self._is_used_once(name) and len(weights.as_rows(name)) == values.shape[1]
        if form == "integer":
            integers = self._beside(do, self._stored.held(name, values), name, "int8")
        else:
            top = self._stored
            stored = Stored(do, weights, self.forms, moved=self._moved, outer=top) if alone else top
            integers = stored.turned(name, stored.integers(name), direction)
        if form != "integer" and alone:
            scale = do("Reshape", [stored.scale(weights.as_scales(name, forms.bits(form)), name), do.integers(-1)])
        else:
            scale = self._beside(do, columns.reshape(-1), name, "scale")
        zeros = [self.zeros(())] if self._moved else []
        if by_row:
            sums, rows = rounded_rows.product(do, x, [integers, *zeros], values, self.by_row)
            return self._plus(do, do("Mul", [sums, do("Mul", [rows, scale])]), bias, name)
        quantized, scale_of_x, zero = do.several("DynamicQuantizeLinear", [x], 3)
        total = do("MatMulInteger", [quantized, integers, zero, *zeros])
        scales = do("Mul", [scale_of_x, scale])
        return self._plus(do, do("Mul", [do("Cast", [total], to=_FLOAT), scales]), bias, name)

    def _beside(self, do: Builder, array: NDArray[Any], matrix: str, kind: str) -> ir.Value:
        """An initializer in `do` if its matrix is used in one place only, in front of everything otherwise.

        A Scan is up to a third faster if the matrices of its body lie in it.
        """
        name = f"{matrix}.{kind}"
        return do.constant(array, name) if self._is_used_once(matrix) else self._stored.constant(array, name)

    def _is_used_once(self, name: str) -> bool:
        return len(self.weights.matrices[name].uses) == 1

    def _plus(self, do: Builder, product: ir.Value, bias: Bias, name: str) -> ir.Value:
        if bias is None:
            return product
        return do("Add", [product, self._beside(do, bias.astype(np.float32), name, "bias")])

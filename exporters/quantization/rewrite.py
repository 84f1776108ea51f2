"""Writes a graph anew with its matrices in their forms; every value that other nodes read keeps its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from compressor.onnx_graphs import walk
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from exporters.quantization import recurrent
from exporters.quantization.matrices import Form, is_plain
from exporters.quantization.nodes import DOMAIN, Names, Nodes, block_product, float_product, integer_product
from exporters.quantization.rounding import Blocks, Rounded, as_stored, to_4_bits, to_8_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Matrix


class Weights:
    """The matrices of a graph, rounded as their forms want it; nothing is rounded twice."""

    def __init__(self, proto: onnx.ModelProto, matrices: Sequence[Matrix], block: int) -> None:
        """`block` is that of 4 bits."""
        import onnx

        known = {matrix.name: matrix for matrix in matrices}
        self.matrices = known
        self.arrays: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in proto.graph.initializer
            if tensor.name in known
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
            plain = array[direction].T if array.ndim == 3 else array.T if self.transposed(name) else array
            self._blocks[key] = to_4_bits(plain, self._block)
        return self._blocks[key]

    def transposed(self, name: str) -> bool:
        """The matrix is stored as (N, K)."""
        return self.matrices[name].channels[-1] == self.arrays[name].ndim - 2

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


class Writer(Protocol):
    """Writes a graph with its matrices in their forms."""

    def write(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """The graph; what is not named stays float. `exact`: with activations left in float."""

    def values(self, name: str, form: Form) -> NDArray[Any]:
        """The float values that a matrix in a form stands for, in its own shape."""

    def stored_bytes(self, name: str, form: Form) -> int:
        """Bytes of a matrix in the file, scales included."""


class Rewriter:
    """A `Writer` of forms that need no calibration."""

    def __init__(self, proto: onnx.ModelProto, weights: Weights) -> None:
        """`proto` is the float graph."""
        self._proto, self._weights = proto, weights
        self.values, self.stored_bytes = weights.restored, weights.stored_bytes

    def write(self, forms: Mapping[str, Form], *, exact: bool = False) -> onnx.ModelProto:
        """See `rewrite`."""
        return rewrite(self._proto, self._weights, forms, exact=exact)


def restored(proto: onnx.ModelProto, writer: Writer, forms: Mapping[str, Form]) -> onnx.ModelProto:
    """The same graph with the same nodes, its matrices rounded in their values only."""
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(proto)
    for tensor in found.graph.initializer:
        if forms.get(tensor.name, "float") != "float":
            array = writer.values(tensor.name, forms[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return found


def rewrite(
    proto: onnx.ModelProto, weights: Weights, forms: Mapping[str, Form], *, exact: bool = False
) -> onnx.ModelProto:
    """The graph with its matrices in the given forms.

    Args:
        proto: The float graph; it is not changed.
        weights: Its matrices.
        forms: Matrix -> form; what is not named stays float.
        exact: Round weights only, so that the graph computes what `restored` does: same places, same integers, same
            bodies, but products in float. What is proven of it holds for the structure of the graph itself.
    """
    return _Rewriter(proto, weights, forms, exact).carry_out()


class _Rewriter:
    def __init__(self, proto: onnx.ModelProto, weights: Weights, forms: Mapping[str, Form], exact: bool) -> None:
        import onnx

        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        graph = self.proto.graph
        taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        for node in walk.nodes(graph):
            taken |= {*node.input, *node.output}
            for attribute in node.attribute:
                taken |= {value.name for value in attribute.g.input}
                taken |= {tensor.name for tensor in attribute.g.initializer}
        self.names = Names(taken)
        self.weights = weights
        self.forms = {name: form for name, form in forms.items() if form != "float"}
        self.exact = exact
        self.top = Nodes(self.names)
        """What comes in front of the first node."""
        self._floats: dict[str, str] = {}
        self._zeros: dict[tuple[int, ...], str] = {}

    def carry_out(self) -> onnx.ModelProto:
        import onnx

        graph = self.proto.graph
        nodes, initializers = self._nodes(graph.node)
        used = {name for node in (*self.top.nodes, *nodes) for inner in walk.with_bodies(node) for name in inner.input}
        used |= {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend([*self.top.nodes, *nodes])
        graph.initializer.extend([*kept, *self.top.initializers, *initializers])
        domains = {node.domain for node in walk.nodes(graph)}
        if DOMAIN in domains and DOMAIN not in {entry.domain for entry in self.proto.opset_import}:
            self.proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
        return self.proto

    def _nodes(self, given: Iterable[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        made = Nodes(self.names)
        for node in given:
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    if body.node:
                        nodes, initializers = self._nodes(body.node)
                        del body.node[:]
                        body.node.extend(nodes)
                        body.initializer.extend(initializers)
            self._node(made, node)
        return made.nodes, made.initializers

    def _node(self, made: Nodes, node: onnx.NodeProto) -> None:
        chosen = [self.forms.get(name) for name in node.input]
        if not any(chosen):
            made.nodes.append(node)
            return
        plain = is_plain(node) and node.domain in walk.STANDARD
        if plain and node.op_type in RECURRENT:
            forms = [form or "float" for form in chosen[1:3]]
            if recurrent.write(made, node, forms[0], forms[1], self):
                return
        elif plain and node.op_type in ("MatMul", "Gemm") and self._product(made, node):
            return
        elif plain and node.op_type == "Gather" and chosen[0]:
            self._lookup(made, node)
            return
        for place, name in enumerate(node.input):
            if name in self.forms:
                node.input[place] = self.floats(name)
        made.nodes.append(node)

    # --- weights in front of an operator ---

    def zeros(self, shape: tuple[int, ...]) -> str:
        """Zero points of 8 bits, one initializer for each shape."""
        if shape not in self._zeros:
            self._zeros[shape] = self.top.constant(np.zeros(shape, np.int8), "quantized.zero")
        return self._zeros[shape]

    def floats(self, name: str) -> str:
        """The value that holds a matrix in float again; it is made once, in front of everything."""
        if name not in self.forms:
            return name
        if name not in self._floats:
            self._floats[name] = self._dequantized(name)
        return self._floats[name]

    def _dequantized(self, name: str) -> str:
        import onnx

        top, output = self.top, self.names.new(f"{name}.float")
        if self.forms[name] == "half":
            top("Cast", [self._half(self.weights.arrays[name], name)], [output], to=1)
            return output
        low = self.weights.low(name)
        if self.forms[name] == "int4" and self.weights.matrices[name].is_product:
            array = self.weights.restored(name, "int4")
            top.initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), output))
            return output
        shape, channels = low.values.shape, self.weights.matrices[name].channels
        if low.values.ndim == 2 and channels == (1,):
            self._dequantized_columns(low, name, output)
            return output
        rows = [axis for axis in channels if shape[axis] > 1] or [channels[-1]]
        if len(rows) == 1:
            inputs = [top.constant(low.values, f"{name}.int8"), top.constant(low.scale.reshape(-1), f"{name}.scale")]
            top("DequantizeLinear", inputs, [output], axis=rows[0])
            return output
        # Two directions: one axis of scales at a time is all that the operator has.
        flat = low.values.reshape(shape[0] * shape[1], -1)
        inputs = [top.constant(flat, f"{name}.int8"), top.constant(low.scale.reshape(-1), f"{name}.scale")]
        joined = top("DequantizeLinear", inputs, axis=0)
        top("Reshape", [joined, top.integers(*shape)], [output])
        return output

    def _half(self, array: NDArray[Any], name: str) -> str:
        return self.top.constant(array.astype(np.float16), f"{name}.float16")

    def _dequantized_columns(self, low: Rounded, name: str, output: str) -> None:
        """A matrix (K, N), stored as (N, K).

        ONNX Runtime fuses a DequantizeLinear right in front of a product with it, to one that rounds its other side
        too; that is what this form is to avoid, and a Transpose between them does.
        """
        top = self.top
        inputs = [top.constant(low.values.T, f"{name}.int8"), top.constant(low.scale.reshape(-1), f"{name}.scale")]
        top("Transpose", [top("DequantizeLinear", inputs, axis=0)], [output], perm=[1, 0])

    # --- products and tables ---

    def product(self, made: Nodes, x: str, name: str, bias: NDArray[Any] | None = None, direction: int = 0) -> str:
        """X (..., K) @ `name` (K, N) + bias by the matrix's form; of a recurrent node its transposed `direction`."""
        form, array = self.forms.get(name, "float"), self.weights.arrays[name]
        if form == "int4":
            blocks = self.weights.blocks(name, direction)
            stored = self.top.scale(blocks.scale.reshape(-1), f"{name}.scale")
            return block_product(made, x, blocks, stored, name, bias, exact=self.exact)
        plain = array[direction].T if array.ndim == 3 else array.T if self.weights.transposed(name) else array
        if form == "float":
            return float_product(made, x, self.top.constant(plain, f"{name}.transposed"), name, bias)
        if form == "half":
            return float_product(made, x, self.top("Cast", [self._half(plain, name)], to=1), name, bias)
        low = self.weights.low(name)
        values, scale = low.values, low.scale
        if array.ndim == 3:
            values, scale = values[direction].T, scale[direction].T
        elif self.weights.transposed(name):
            values, scale = values.T, scale.T
        if form == "integer" and not self.exact:
            return integer_product(made, x, Rounded(values, scale), name, bias)
        weight = self.names.new(f"{name}.float")
        self._dequantized_columns(Rounded(values, scale), name, weight)
        return float_product(made, x, weight, name, bias)

    def _product(self, made: Nodes, node: onnx.NodeProto) -> bool:
        """A MatMul or Gemm as a product of integers or 4 bits; False where its matrix has another form."""
        name = node.input[1]
        if self.forms.get(name) not in ("integer", "int4") or node.input[0] in self.forms:
            return False
        product = self.product(made, node.input[0], name)
        if len(node.input) > 2 and node.input[2]:
            made("Add", [product, node.input[2]], [node.output[0]])
        else:
            made.nodes[-1].output[0] = node.output[0]
        return True

    def _lookup(self, made: Nodes, node: onnx.NodeProto) -> None:
        """Rows of a table in 8 bits, each by its own scale: only the rows that are asked for become float."""
        name, rows = node.input[0], node.input[1]
        if self.forms[name] == "half":
            half = made.constant(self.weights.arrays[name].astype(np.float16), f"{name}.float16")
            made("Cast", [made("Gather", [half, rows])], [node.output[0]], to=1)
            return
        low = self.weights.low(name)
        values = made("Gather", [made.constant(low.values, f"{name}.int8"), rows])
        stored = as_stored(low.scale)
        scale = made("Gather", [made.constant(stored, f"{name}.scale"), rows])
        scale = scale if stored.dtype == np.float32 else made("Cast", [scale], to=1)
        made("Mul", [made("Cast", [values], to=1), scale], [node.output[0]])

"""Multiply-accumulates of one ONNX operator, from its attributes and the shapes of its inputs and outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx

from compressor.gates import BY_OPERATOR
from compressor.onnx_graphs.walk import STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Shape = tuple[int, ...]


class UncountableError(Exception):
    """A node of a known type in a form whose count is not known."""


class NodeShapes:
    """A node with the shapes of its inputs and outputs."""

    def __init__(self, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
        """`shapes` knows every input and output of `node` that is not left out."""
        self.inputs = [shapes.get(name) for name in node.input]
        self.output = shapes[node.output[0]] if node.output and node.output[0] else None
        self._attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    def shape(self, index: int) -> Shape:
        """Shape of an input that must be there."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        if shape is None:
            raise UncountableError
        return shape

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; text comes as str."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def _matmul(node: NodeShapes) -> int:
    """(..., M, K) x (..., K, N): elements of the output x K."""
    if node.output is None:
        raise UncountableError
    return math.prod(node.output) * node.shape(0)[-1]


def _gemm(node: NodeShapes) -> int:
    """M x K x N; the first input is (M, K), or (K, M) with transA."""
    if node.output is None:
        raise UncountableError
    return math.prod(node.output) * node.shape(0)[0 if node.attribute("transA", 0) else 1]


def _convolution(weight: int) -> Callable[[NodeShapes], int]:
    """Elements of the output x (input channels / groups) x kernel size; weight (O, I / groups, *kernel)."""

    def counter(node: NodeShapes) -> int:
        if node.output is None:
            raise UncountableError
        return math.prod(node.output) * math.prod(node.shape(weight)[1:])

    return counter


def _transposed_convolution(node: NodeShapes) -> int:
    """Elements of the input x (output channels / groups) x kernel size; weight (I, O / groups, *kernel)."""
    return math.prod(node.shape(0)) * math.prod(node.shape(1)[1:])


def _recurrent(gates: int) -> Callable[[NodeShapes], int]:
    """T x B x directions x gates x H x (I + H): one product with the input and one with the state in every gate.

    T and B from X (T, B, I), or (B, T, I) with layout 1; gates: RNN 1, GRU 3, LSTM 4. Weights W (directions,
    gates x H, I) and R (directions, gates x H, H). Sequences shorter than T (`sequence_lens`) count in full.
    """

    def counter(node: NodeShapes) -> int:
        *steps, inputs = node.shape(0)
        directions, rows, hidden = node.shape(2)
        if rows != gates * hidden:
            raise UncountableError
        return math.prod(steps) * directions * rows * (inputs + hidden)

    return counter


def _recurrent_of_transposed(node: NodeShapes) -> int:
    """T x B x directions x (I + H) x 4H of a `DynamicQuantizeLSTM`, whose W is (directions, I, 4H)."""
    *steps, _ = node.shape(0)
    directions, inputs, rows = node.shape(1)
    return math.prod(steps) * directions * rows * (inputs + rows // 4)


def _einsum(node: NodeShapes) -> int:
    """Product of the sizes of all the letters, for two operands without an ellipsis."""
    letters = str(node.attribute("equation", "")).replace(" ", "").split("->")[0].split(",")
    if len(letters) != 2 or "." in "".join(letters):
        raise UncountableError
    sizes = {
        letter: size for index, term in enumerate(letters) for letter, size in zip(term, node.shape(index), strict=True)
    }
    return math.prod(sizes.values())


def _attention(node: NodeShapes) -> int:
    """B x heads x Lq x Lk x (Dq + Dv): scores and weighted sum, all positions, masked or not.

    Q (B, heads, Lq, Dq), K (B, kv_heads, Lk, Dq), V (B, kv_heads, Lk, Dv), or 3-D with the heads side by side;
    `past_key` (B, kv_heads, Lp, Dq) adds its Lp to Lk. Grouped queries share keys but not products.
    """
    query, key, value = node.shape(0), node.shape(1), node.shape(2)
    past = node.inputs[4] if len(node.inputs) > 4 else None
    keys = key[-2] + (past[-2] if past else 0)
    if len(query) == 4:
        batch, heads, queries, width = query
        value_width = value[-1]
    else:
        batch, queries, joined = query
        heads = node.attribute("q_num_heads", 0)
        if not heads:
            raise UncountableError
        width = joined // heads
        value_width = value[-1] // node.attribute("kv_num_heads", heads)
    return int(batch * heads * queries * keys * (width + value_width))


_COUNTERS: dict[str, Callable[[NodeShapes], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _convolution(weight=1),
    "ConvInteger": _convolution(weight=1),
    "QLinearConv": _convolution(weight=3),
    "ConvTranspose": _transposed_convolution,
    **{operator: _recurrent(gates.count) for operator, gates in BY_OPERATOR.items()},
    "Einsum": _einsum,
    "Attention": _attention,
}

_RUNTIME = "com.microsoft"
_RUNTIME_COUNTERS: dict[str, Callable[[NodeShapes], int]] = {
    "DynamicQuantizeLSTM": _recurrent_of_transposed,
    "MatMulNBits": _matmul,
}
"""Operators of ONNX Runtime's own that the exporter writes."""

_NO_PRODUCTS = frozenset([
    "Add", "And", "BatchNormalization", "Cast", "CastLike", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape",
    "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Equal", "Expand", "Gather", "GatherElements", "GatherND",
    "Greater", "GreaterOrEqual", "GroupNormalization", "Identity", "InstanceNormalization", "LayerNormalization",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow",
    "QuantizeLinear", "RMSNormalization", "Range", "Reshape", "Resize", "RotaryEmbedding", "Scatter",
    "ScatterElements", "ScatterND", "Shape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where", "Xor",
])  # fmt: skip
"""Standard operators that often take a weight but hold no matrix product."""


def counter(node: onnx.NodeProto) -> Callable[[NodeShapes], int] | None:
    """What counts a node of this type; None if the type is not known to multiply matrices."""
    if node.domain == _RUNTIME:
        return _RUNTIME_COUNTERS.get(node.op_type)
    return _COUNTERS.get(node.op_type) if node.domain in STANDARD else None


def is_free_of_products(node: onnx.NodeProto) -> bool:
    """Whether a standard operator is known to hold no matrix product, though it may take a weight."""
    return node.op_type in _NO_PRODUCTS

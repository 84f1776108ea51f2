"""Multiply-accumulates of an ONNX file at concrete input shapes (FLOPs = 2 x MACs).

Matrix products, convolutions and recurrent layers are counted, in the body of a `Scan` once for each step. Elementwise
arithmetic, activations, normalisation, biases and peepholes are not, as usual. Shapes are not inferred but seen: the
graph is run once in ONNX Runtime with the inputs and outputs of the counted nodes as additional outputs, which works
for every graph that runs.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto
from onnx.inliner import inline_local_functions

from compressor.errors import ExportError
from compressor.runtimes.onnx_runtime import PROVIDER, OnnxFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

Shape = tuple[int, ...]


class _UncountableError(Exception):
    """A node of a known type in a form whose count is not known."""


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates by operator type, and the operators that could not be counted."""

    by_operator: Mapping[str, int]
    uncounted: tuple[str, ...] = ()
    """Types of operators that may multiply weights in a way not known here."""

    @property
    def total(self) -> int | None:
        """The sum; none where an operator was not counted, since the sum would be too small."""
        return None if self.uncounted else sum(self.by_operator.values())


def count(path: Path, inputs: Sequence[Tensor]) -> int | None:
    """Multiply-accumulates of one run of `path` on `inputs`; see `survey` for which operators stood in the way."""
    return survey(path, inputs).total


def survey(path: Path, inputs: Sequence[Tensor]) -> MacCount:
    """Multiply-accumulates of one run of `path` on `inputs`, by operator type.

    Raises:
        ExportError: the file cannot be loaded or run.
        UsageError: inputs that the file does not take.
    """
    feed = OnnxFile(path).feed(inputs)
    return _survey(path, _load(path), feed)


def _survey(path: Path, model: ModelProto, feed: Mapping[str, Any]) -> MacCount:
    holding = [node for node in model.graph.node if not _counted(node) and _may_hold_products(node, model)]
    loops = [node for node in holding if _is_scan(node)]
    uncounted = [_label(node) for node in holding if not _is_scan(node)]
    nodes = [node for node in model.graph.node if _counted(node)]
    shapes = _shapes(path, model, [*nodes, *loops], feed)
    by_operator: Counter[str] = Counter()
    for node in nodes:
        counter = _counter(node)
        assert counter is not None
        try:
            by_operator[node.op_type] += counter(_Node(node, shapes))
        except _UncountableError:
            uncounted.append(_label(node))
    for node in loops:
        try:
            steps, body = _body_of_scan(path, model, node, shapes)
        except _UncountableError:
            uncounted.append(_label(node))
            continue
        by_operator.update({operator: steps * products for operator, products in body.by_operator.items()})
        uncounted += body.uncounted
    return MacCount(dict(by_operator), tuple(dict.fromkeys(uncounted)))


def _is_scan(node: NodeProto) -> bool:
    return _standard(node) and node.op_type == "Scan"


def _body_of_scan(path: Path, model: ModelProto, node: NodeProto, shapes: Mapping[str, Shape]) -> tuple[int, MacCount]:
    """Number of steps, and the MACs of one: the body runs as a model of its own, on zeros.

    Raises:
        _UncountableError: It runs along another axis than the first, or reads values of the graph around it that are
            computed there from its inputs.
    """
    attributes = {item.name: item for item in node.attribute}
    if "scan_input_axes" in attributes and any(attributes["scan_input_axes"].ints):
        raise _UncountableError
    body, sequences = attributes["body"].g, attributes["num_scan_inputs"].i
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    own = {value.name for value in body.input} | {name for inner in body.node for name in inner.output}
    own |= {tensor.name for tensor in body.initializer}
    captured = {name for inner in body.node for name in inner.input if name} - own
    made = _made_of_weights(model.graph, captured, set(weights))
    captured |= {name for inner in made for name in inner.input if name}
    alone = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=body)
    alone.graph.initializer.extend(weights[name] for name in sorted(captured & set(weights)))
    del alone.graph.node[:]
    alone.graph.node.extend([*made, *body.node])
    feed = {}
    for index, (outer, value) in enumerate(zip(node.input, alone.graph.input, strict=True)):
        shape = shapes[outer][1 if index >= len(node.input) - sequences else 0 :]
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
        feed[value.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(element))
    return shapes[node.input[-1]][0], _survey(path, alone, feed)


def _made_of_weights(graph: GraphProto, names: set[str], weights: set[str]) -> list[NodeProto]:
    """The nodes that compute those of `names` that are no weights, in the order of the graph.

    Raises:
        _UncountableError: One of them depends on an input of the graph.
    """
    missing, found = names - weights, []
    for node in reversed(graph.node):
        if missing.isdisjoint(node.output):
            continue
        found.append(node)
        missing = (missing - set(node.output)) | ({name for name in node.input if name} - weights)
    if missing:
        raise _UncountableError
    return found[::-1]


class _Node:
    """A node with the shapes of its inputs and outputs."""

    def __init__(self, node: NodeProto, shapes: Mapping[str, Shape]) -> None:
        """`shapes` knows every input and output of `node` that is not left out."""
        self.inputs = [shapes.get(name) for name in node.input]
        self.output = shapes[node.output[0]] if node.output and node.output[0] else None
        self._attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    def shape(self, index: int) -> Shape:
        """Shape of an input that must be there."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        if shape is None:
            raise _UncountableError
        return shape

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; text comes as str."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def _matmul(node: _Node) -> int:
    """(..., M, K) x (..., K, N): elements of the output x K."""
    if node.output is None:
        raise _UncountableError
    return math.prod(node.output) * node.shape(0)[-1]


def _gemm(node: _Node) -> int:
    """M x K x N, where the first input is (M, K), or (K, M) with transA."""
    if node.output is None:
        raise _UncountableError
    return math.prod(node.output) * node.shape(0)[0 if node.attribute("transA", 0) else 1]


def _convolution(weight: int) -> Callable[[_Node], int]:
    """Elements of the output x (input channels / groups) x kernel size; weight (O, I / groups, *kernel)."""

    def counter(node: _Node) -> int:
        if node.output is None:
            raise _UncountableError
        return math.prod(node.output) * math.prod(node.shape(weight)[1:])

    return counter


def _transposed_convolution(node: _Node) -> int:
    """Elements of the input x (output channels / groups) x kernel size; weight (I, O / groups, *kernel)."""
    return math.prod(node.shape(0)) * math.prod(node.shape(1)[1:])


def _recurrent(gates: int) -> Callable[[_Node], int]:
    """T x B x directions x gates x H x (I + H): one product with the input and one with the state in every gate.

    T and B from X (T, B, I), or (B, T, I) with layout 1; gates: RNN 1, GRU 3, LSTM 4. Weights W (directions,
    gates x H, I) and R (directions, gates x H, H). Sequences shorter than T (`sequence_lens`) count in full.
    """

    def counter(node: _Node) -> int:
        *steps, inputs = node.shape(0)
        directions, rows, hidden = node.shape(2)
        if rows != gates * hidden:
            raise _UncountableError
        return math.prod(steps) * directions * rows * (inputs + hidden)

    return counter


def _recurrent_of_transposed(node: _Node) -> int:
    """T x B x directions x (I + H) x 4H of a `DynamicQuantizeLSTM`, whose W is (directions, I, 4H)."""
    *steps, _ = node.shape(0)
    directions, inputs, rows = node.shape(1)
    return math.prod(steps) * directions * rows * (inputs + rows // 4)


def _einsum(node: _Node) -> int:
    """Product of the sizes of all the letters, for two operands without an ellipsis."""
    letters = str(node.attribute("equation", "")).replace(" ", "").split("->")[0].split(",")
    if len(letters) != 2 or "." in "".join(letters):
        raise _UncountableError
    sizes = {
        letter: size for index, term in enumerate(letters) for letter, size in zip(term, node.shape(index), strict=True)
    }
    return math.prod(sizes.values())


def _attention(node: _Node) -> int:
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
            raise _UncountableError
        width = joined // heads
        value_width = value[-1] // node.attribute("kv_num_heads", heads)
    return int(batch * heads * queries * keys * (width + value_width))


_COUNTERS: dict[str, Callable[[_Node], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _convolution(weight=1),
    "ConvInteger": _convolution(weight=1),
    "QLinearConv": _convolution(weight=3),
    "ConvTranspose": _transposed_convolution,
    "RNN": _recurrent(1),
    "GRU": _recurrent(3),
    "LSTM": _recurrent(4),
    "Einsum": _einsum,
    "Attention": _attention,
}

_RUNTIME = "com.microsoft"
_RUNTIME_COUNTERS: dict[str, Callable[[_Node], int]] = {
    "DynamicQuantizeLSTM": _recurrent_of_transposed,
    "MatMulNBits": _matmul,
}
"""Operators of ONNX Runtime's own that the exporter writes."""

_NO_PRODUCTS = """
    Add And BatchNormalization Cast CastLike Clip Compress Concat Constant ConstantOfShape DequantizeLinear Div
    DynamicQuantizeLinear Equal Expand Gather GatherElements GatherND Greater GreaterOrEqual GroupNormalization
    Identity InstanceNormalization LayerNormalization Less LessOrEqual Max Mean Min Mod Mul Not OneHot Or PRelu Pad
    Pow QuantizeLinear RMSNormalization Range Reshape Resize RotaryEmbedding Scatter ScatterElements ScatterND Shape
    Slice Split Squeeze Sub Sum Tile TopK Transpose Trilu Unsqueeze Where Xor
    """
"""Standard operators that often take a weight but hold no matrix product."""


def _counted(node: NodeProto) -> bool:
    return _counter(node) is not None


def _counter(node: NodeProto) -> Callable[[_Node], int] | None:
    if node.domain == _RUNTIME:
        return _RUNTIME_COUNTERS.get(node.op_type)
    return _COUNTERS.get(node.op_type) if _standard(node) else None


def _may_hold_products(node: NodeProto, model: ModelProto) -> bool:
    """Does this uncounted node multiply matrices, as far as one can tell?

    Operators of other domains might; a control-flow operator does when a node in its bodies does; a standard
    operator that is not known to be free of products might when it takes a weight of two or more axes.
    """
    if not _standard(node):
        return True
    bodies = list(_bodies(node))
    if bodies:
        return any(_counted(inner) or _may_hold_products(inner, model) for body in bodies for inner in body.node)
    if node.op_type in _NO_PRODUCTS.split():
        return False
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    return any(name in matrices for name in node.input)


def _standard(node: NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _label(node: NodeProto) -> str:
    return node.op_type if _standard(node) else f"{node.domain}::{node.op_type}"


def _load(path: Path) -> ModelProto:
    try:
        model: ModelProto = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ExportError(f"{path} is not an ONNX model: {error}", hint="export the model again") from error
    return inline_local_functions(model) if model.functions else model


def _shapes(path: Path, model: ModelProto, nodes: Sequence[NodeProto], feed: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of every input and output of `nodes` when the graph runs on `feed`."""
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: array.shape for name, array in feed.items()}
    wanted = [name for node in nodes for name in (*node.input, *node.output[:1]) if name and name not in shapes]
    names = list(dict.fromkeys(wanted))
    if not names:
        return shapes
    seen = ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = onnxruntime.InferenceSession(seen.SerializeToString(), _quiet(), providers=[PROVIDER])
        values = session.run(names, dict(feed))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(f"{path} cannot be run to see its shapes: {error}", hint="does it run at all?") from error
    return shapes | {name: value.shape for name, value in zip(names, values, strict=True)}


def _quiet() -> Any:
    """One thread, errors only, and no optimisation that would fuse the nodes away."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options

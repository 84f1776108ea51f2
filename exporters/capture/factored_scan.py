"""Replaces the placeholders of `factored_recurrent` by `Scan` operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.gates import BY_MODE
from exporters.capture.factored_recurrent import PLACEHOLDER, PLACEHOLDER_DOMAIN, keeps_products_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir

    from compressor.gates import CellGates


def expand(model: onnx_ir.Model) -> None:
    """Replace every placeholder by a `Scan`, in place."""
    for index, node in enumerate(list(model.graph)):
        if node.domain == PLACEHOLDER_DOMAIN and node.op_type == PLACEHOLDER:
            _expand(model.graph, node, f"scan_{index}")
    model.opset_imports.pop(PLACEHOLDER_DOMAIN, None)


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node, prefix: str) -> None:
    import onnx_ir as ir

    attributes = {name: node.attributes[name].as_int() for name in ("projected", "masked", "backward")}
    gates = BY_MODE[node.attributes["mode"].as_string()]
    masked, backward, count = attributes["masked"], attributes["backward"], len(gates.states)
    sequences = 1 + keeps_products_apart(gates) + masked
    inputs = list(node.inputs)
    outer, weights = inputs[: count + sequences], inputs[count + sequences :]
    body = _Body(prefix)
    states = [body.input(f"state_{i}", value) for i, value in enumerate(outer[:count])]
    steps = [body.input(f"step_{i}", value) for i, value in enumerate(outer[count:])]
    step = _projected if attributes["projected"] else _STEPS[gates.operator]
    new = step(body, gates, states, steps[: sequences - masked], weights)
    if masked:
        new = [body("Where", [steps[-1], after, before]) for after, before in zip(new, states, strict=True)]
    new = [body("Identity", [value]) if value in states else value for value in new]
    y = body("Identity", [new[0]])
    scan = ir.Node(
        "",
        "Scan",
        outer,
        [
            ir.AttrGraph("body", ir.Graph(body.inputs, [*new, y], nodes=body.nodes, name=prefix)),
            ir.AttrInt64("num_scan_inputs", sequences),
            ir.AttrInt64s("scan_input_directions", [backward] * sequences),
            ir.AttrInt64s("scan_output_directions", [backward]),
        ],
        num_outputs=count + 1,
        name=prefix,
    )
    for old, value in zip(node.outputs, scan.outputs, strict=True):
        value.shape, value.type, value.name = old.shape, old.type, old.name
    for value, like in zip([*new, y], [*node.outputs[:-1], node.outputs[0]], strict=True):
        value.shape, value.type = like.shape, like.type
    graph.insert_before(node, scan)
    ir.convenience.replace_all_uses_with(node.outputs, scan.outputs, replace_graph_outputs=True)
    graph.remove(node, safe=True)


class _Body:
    """Collects the nodes of a body; every value has a name that no other one in the file has."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.inputs: list[onnx_ir.Value] = []
        self.nodes: list[onnx_ir.Node] = []

    def input(self, name: str, outer: onnx_ir.Value | None) -> onnx_ir.Value:
        """A state or a step, of the type of the value outside; without a shape, which follows from there."""
        import onnx_ir as ir

        assert outer is not None
        value = ir.Value(name=f"{self.prefix}_{name}", type=outer.type)
        self.inputs.append(value)
        return value

    def __call__(self, operator: str, inputs: Sequence[Any], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; gives its output, or its outputs."""
        import onnx_ir as ir

        node = ir.node(operator, inputs, attributes, num_outputs=outputs)
        for index, value in enumerate(node.outputs):
            value.name = f"{self.prefix}_{len(self.nodes)}_{index}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)


def _lstm(body: _Body, gates: CellGates, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """i, f, o = sigmoid, g = tanh of U (D h) + x;  c' = f * c + i * g;  h' = o * tanh(c')."""
    (h, c), (x,), (down, up) = states, steps, weights
    return _lstm_cell(body, body("Gemm", [body("MatMul", [h, down]), up, x]), c, up.shape[1] // 4)


def _projected(body: _Body, gates: CellGates, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """The same with U h + x, and h' = P (o * tanh(c'))."""
    (h, c), (x,), (up, out) = states, steps, weights
    high, cell = _lstm_cell(body, body("Gemm", [h, up, x]), c, up.shape[1] // 4)
    return [body("MatMul", [high, out]), cell]


def _lstm_cell(body: _Body, total: Any, c: Any, size: int) -> list[Any]:
    """The new h and c from the sums (B, 4 * H), gates in the order i, f, o, g."""
    smooth, new = body("Split", [total, _sizes(body, [3 * size, size])], 2, axis=-1)
    enter, forget, out = body("Split", [body("Sigmoid", [smooth]), _sizes(body, [size] * 3)], 3, axis=-1)
    cell = body("Add", [body("Mul", [forget, c]), body("Mul", [enter, body("Tanh", [new])])])
    return [body("Mul", [out, body("Tanh", [cell])]), cell]


def _gru(body: _Body, gates: CellGates, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """r, z = sigmoid(U_rz (D h) + x_rz);  n = tanh(x_n + r * (U_n (D h) + b_n));  h' = n + z * (h - n)."""
    (h,), (x_gates, x_new), (down, up_gates, up_new, bias) = states, steps, weights
    size = up_new.shape[1]
    low = body("MatMul", [h, down])
    both = body("Sigmoid", [body("Gemm", [low, up_gates, x_gates])])
    reset, keep = body("Split", [both, _sizes(body, [size] * 2)], 2, axis=-1)
    new = body("Tanh", [body("Add", [x_new, body("Mul", [reset, body("Gemm", [low, up_new, bias])])])])
    return [body("Add", [new, body("Mul", [keep, body("Sub", [h, new])])])]


def _rnn(body: _Body, gates: CellGates, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """H' = tanh or relu of U (D h) + x."""
    (h,), (x,), (down, up) = states, steps, weights
    return [body(gates.activations[0], [body("Gemm", [body("MatMul", [h, down]), up, x])])]


def _sizes(body: _Body, sizes: list[int]) -> Any:
    import numpy as np
    import onnx_ir as ir

    return body("Constant", [], value=ir.tensor(np.array(sizes, dtype=np.int64)))


_STEPS: dict[str, Callable[..., list[Any]]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}

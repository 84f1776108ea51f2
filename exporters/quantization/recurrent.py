"""RNN, GRU and LSTM by integer or 4-bit products.

ONNX Runtime has one such node, `DynamicQuantizeLSTM`. The others become a `Scan`: the products with the inputs are
taken for all steps at once in front of it, and its body holds the product with the state, and the gates.
Gate order and equations are those of https://onnx.ai/onnx/operators/ (GRU with `linear_before_reset`, as PyTorch's is).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from compressor.gates import BY_OPERATOR
from exporters.quantization.nodes import DOMAIN, Names, Nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    from exporters.quantization.matrices import Form
    from exporters.quantization.rewrite import Weights

_PRODUCTS = ("integer", "int4")


class Writer(Protocol):
    """What this module needs of the rewriter."""

    weights: Weights
    names: Names
    exact: bool
    proto: onnx.ModelProto

    def floats(self, name: str) -> str:
        """The value that holds a matrix in float."""

    def zeros(self, shape: tuple[int, ...]) -> str:
        """Zero points of 8 bits."""

    def product(self, made: Nodes, x: str, name: str, bias: NDArray[Any] | None = None, direction: int = 0) -> str:
        """X @ matrix + bias."""


def write(made: Nodes, node: onnx.NodeProto, inputs: Form, state: Form, writer: Writer) -> bool:
    """A recurrent node in the forms of its two matrices; False where it stays a native node on float weights."""
    if state not in _PRODUCTS and inputs not in _PRODUCTS:
        return False
    if node.op_type == "LSTM" and inputs == state == "integer":
        if writer.exact:
            return False
        _dynamic_lstm(made, node, writer)
    else:
        _Scan(made, node, writer).write()
    return True


def _dynamic_lstm(made: Nodes, node: onnx.NodeProto, writer: Writer) -> None:
    """`DynamicQuantizeLSTM`: weights (D, I, 4 * H), and for each direction and row a scale and a zero point."""
    given = [*node.input, *[""] * (8 - len(node.input))]
    scales = []
    for place in (1, 2):
        name = given[place]
        low = writer.weights.low(name)
        given[place] = made.constant(low.values.swapaxes(1, 2), f"{name}.int8")
        scale = low.scale[..., 0]  # (D, 4 * H)
        scales += [made.scale(scale, f"{name}.scale"), writer.zeros(scale.shape)]
    made("DynamicQuantizeLSTM", [*given, *scales], list(node.output), domain=DOMAIN, **_attributes(node))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


class _Scan:
    """A recurrent node as one Scan for each direction."""

    def __init__(self, made: Nodes, node: onnx.NodeProto, writer: Writer) -> None:
        import onnx

        self.made, self.node, self.writer = made, node, writer
        self.x, self.w, self.r, self.b, self.lengths, *self.initial = [*node.input, *[""] * 7][:7]
        shape = writer.weights.arrays[self.r].shape
        self.directions, self.size = shape[0], shape[2]
        attributes = _attributes(node)
        self.backward = attributes.get("direction", b"forward") == b"reverse"
        self.activations = [word.decode() for word in attributes.get("activations", [])] or ["Tanh"] * self.directions
        bias = next((t for t in writer.proto.graph.initializer if t.name == self.b), None)
        rows = BY_OPERATOR[node.op_type].count * self.size
        self.bias = np.zeros((self.directions, 2 * rows), np.float32)
        if bias is not None:
            self.bias = onnx.numpy_helper.to_array(bias)
        self.states = 2 if node.op_type == "LSTM" else 1

    def write(self) -> None:
        """Add the nodes; the outputs have the names of the old ones."""
        made = self.made
        valid = self._valid() if self.lengths else ""
        found = [self._direction(direction, valid) for direction in range(self.directions)]
        for place, name in enumerate(self.node.output):
            if not name:
                continue
            axis = 1 if place == 0 else 0  # (T, D, B, H), (D, B, H)
            parts = [made("Unsqueeze", [outputs[place], made.integers(axis)]) for outputs in found]
            if len(parts) == 1:
                made.nodes[-1].output[0] = name
            else:
                made("Concat", parts, [name], axis=axis)

    def _valid(self) -> str:
        """(T, B, 1): False past the end of a sequence."""
        made = self.made
        time = made("Squeeze", [made("Shape", [self.x], start=0, end=1), made.integers(0)])
        zero, one = (made.constant(np.array(number, np.int64)) for number in (0, 1))
        steps = made("Unsqueeze", [made("Range", [zero, time, one]), made.integers(1)])  # (T, 1)
        inside = made("Less", [steps, made("Cast", [self.lengths], to=7)])  # (T, B)
        padded: str = made("Unsqueeze", [inside, made.integers(2)])
        return padded

    def _start(self, initial: str, direction: int) -> str:
        """A state in front of the first step (B, H)."""
        made = self.made
        if initial:
            first: str = made("Gather", [initial, made.constant(np.array(direction, np.int64))], axis=0)
            return first
        batch = made("Shape", [self.x], start=1, end=2)
        zeros: str = made("Expand", [made.constant(np.zeros((1, 1), np.float32)), self._sizes(batch)])
        return zeros

    def _sizes(self, batch: str) -> str:
        joined: str = self.made("Concat", [batch, self.made.integers(self.size)], axis=0)
        return joined

    def _direction(self, direction: int, valid: str) -> list[str]:
        """Y (T, B, H) and the last states (B, H) of one direction."""
        import onnx

        made, kind = self.made, self.node.op_type
        rows = BY_OPERATOR[kind].count * self.size
        of_inputs: NDArray[Any] = self.bias[direction, :rows]
        of_state: NDArray[Any] | None = self.bias[direction, rows:]
        if kind != "GRU":  # of a GRU the reset gate scales the second one
            of_inputs, of_state = self.bias[direction].reshape(2, rows).sum(axis=0), None
        steps = self.writer.product(made, self.x, self.w, of_inputs, direction)  # (T, B, G * H)
        sequences = [steps]
        if kind == "GRU":
            sequences = made("Split", [steps, made.integers(2 * self.size, self.size)], 2, axis=-1)
        sequences += [valid] if valid else []
        starts = [self._start(initial, direction) for initial in self.initial[: self.states]]

        body = Nodes(self.writer.names)
        states = [body.names.new("quantized.state") for _ in starts]
        inputs = [body.names.new("quantized.step") for _ in sequences]
        product = self.writer.product(body, states[0], self.r, of_state, direction)
        new = _STEPS[kind](body, product, states, inputs, self.size, self.activations[direction])
        if valid:
            new = [body("Where", [inputs[-1], after, state]) for after, state in zip(new, states, strict=True)]
        y = body("Identity", [new[0]])
        kinds = [onnx.TensorProto.FLOAT] * len(inputs)
        kinds[-1] = onnx.TensorProto.BOOL if valid else kinds[-1]
        graph = onnx.helper.make_graph(
            body.nodes,
            body.names.new("quantized.body"),
            [_info(name, onnx.TensorProto.FLOAT) for name in states]
            + [_info(name, element) for name, element in zip(inputs, kinds, strict=True)],
            [_info(name, onnx.TensorProto.FLOAT) for name in (*new, y)],
            body.initializers,
        )
        backward = int(self.backward or direction == 1)
        *last, y = made(
            "Scan",
            [*starts, *sequences],
            len(starts) + 1,
            body=graph,
            num_scan_inputs=len(sequences),
            scan_input_directions=[backward] * len(sequences),
            scan_output_directions=[backward],
        )
        if valid:
            y = made("Where", [valid, y, made.constant(np.zeros((), np.float32))])
        return [y, *last]


def _info(name: str, element: int) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, element, None)


def _lstm(
    body: Nodes, product: str, states: Sequence[str], steps: Sequence[str], size: int, activation: str
) -> list[str]:
    """i, o, f = sigmoid, g = tanh of R h + x;  c' = f * c + i * g;  h' = o * tanh(c')."""
    total = body("Add", [product, steps[0]])
    smooth, new = body("Split", [total, body.integers(3 * size, size)], 2, axis=-1)
    enter, out, forget = body("Split", [body("Sigmoid", [smooth]), body.integers(size, size, size)], 3, axis=-1)
    cell = body("Add", [body("Mul", [forget, states[1]]), body("Mul", [enter, body("Tanh", [new])])])
    return [body("Mul", [out, body("Tanh", [cell])]), cell]


def _gru(
    body: Nodes, product: str, states: Sequence[str], steps: Sequence[str], size: int, activation: str
) -> list[str]:
    """z, r = sigmoid(R_zr h + x_zr);  n = tanh(x_n + r * (R_n h + b_n));  h' = n + z * (h - n)."""
    of_gates, of_new = body("Split", [product, body.integers(2 * size, size)], 2, axis=-1)
    gates = body("Sigmoid", [body("Add", [of_gates, steps[0]])])
    keep, reset = body("Split", [gates, body.integers(size, size)], 2, axis=-1)
    new = body("Tanh", [body("Add", [steps[1], body("Mul", [reset, of_new])])])
    return [body("Add", [new, body("Mul", [keep, body("Sub", [states[0], new])])])]


def _rnn(
    body: Nodes, product: str, states: Sequence[str], steps: Sequence[str], size: int, activation: str
) -> list[str]:
    """H' = tanh or relu of R h + x."""
    return [body(activation, [body("Add", [product, steps[0]])])]


_STEPS: dict[str, Callable[..., list[str]]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}

"""RNN, GRU and LSTM by products of integers.

ONNX Runtime has one such node, `DynamicQuantizeLSTM`. The others become a `Scan`: the products with the inputs are
taken for all steps at once in front of it, and its body holds the product with the state, and the gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compressor.onnx_graphs import cells
from compressor.onnx_graphs.recurrent_node import RecurrentNode
from compressor.onnx_graphs.scans import layer_scan
from compressor.onnx_graphs.unrolling.rows import joined
from exporters.quantization.forms import arithmetic
from exporters.quantization.products import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from compressor.onnx_graphs.builder import Builder
    from exporters.quantization.products import Products

_INT64 = 7
"""The type int64, as Cast wants it."""


def replacement(do: Builder, node: ir.Node, products: Products) -> list[ir.Value | None] | None:
    """A recurrent node in the forms of its two matrices.

    Args:
        do: Gets the nodes.
        node: GRU nodes have `linear_before_reset` 1, as PyTorch's have.
        products: The matrices.

    Returns:
        Its outputs, None for those that nothing reads; None if it stays a native node on float weights.
    """
    kinds = {arithmetic(products.form(str(value.name))) for value in node.inputs[1:3] if value is not None}
    if "integer" not in kinds:
        return None
    if node.op_type == "LSTM" and kinds == {"integer"} and not products.by_row:
        return None if products.exact else _dynamic_lstm(do, node, products)
    return _Layer(do, node, products).outputs()


def _dynamic_lstm(do: Builder, node: ir.Node, products: Products) -> list[ir.Value | None]:
    """`DynamicQuantizeLSTM`: weights (D, I, 4 * H), and for each direction and row a scale and a zero point."""
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs))]
    scales = []
    for place in (1, 2):
        value = inputs[place]
        assert value is not None
        inputs[place], scale = products.lstm_integers(str(value.name))
        scales += [scale, products.zeros(products.weights.arrays.shape(str(value.name))[:2])]
    count = len(node.outputs)
    return [*do.several("DynamicQuantizeLSTM", [*inputs, *scales], count, domain=DOMAIN, attributes=node.attributes)]


class _Layer:
    """A recurrent node as one Scan for each direction."""

    def __init__(self, do: Builder, node: ir.Node, products: Products) -> None:
        self.do, self.node, self.products = do, node, products
        self.recurrent = RecurrentNode(node)
        x, self.w, self.r = (node.inputs[place] for place in range(3))
        assert x is not None
        self.x, self.size = x, self.recurrent.weights(0)[1].shape[1]

    def outputs(self) -> list[ir.Value | None]:
        """Those of the node."""
        do = self.do
        valid = self._valid()
        directions = [self._direction(*each, valid) for each in enumerate(self.recurrent.backward)]
        results: list[ir.Value | None] = []
        for old, parts in zip(self.node.outputs, zip(*directions, strict=True), strict=False):
            axis = 1 if not results else 0  # (T, D, B, H), (D, B, H)
            used = bool(old.name)
            results.append(
                joined(do, [do("Unsqueeze", [part, do.integers(axis)]) for part in parts], axis) if used else None
            )
        return results

    def _valid(self) -> ir.Value | None:
        """(T, B, 1): False past the end of a sequence; None if all are equally long."""
        do, lengths = self.do, self.recurrent.input("lengths")
        if lengths is None:
            return None
        time = do("Squeeze", [do("Shape", [self.x], start=0, end=1), do.integers(0)])
        zero, one = (do.constant(np.array(number, np.int64)) for number in (0, 1))
        steps = do("Unsqueeze", [do("Range", [zero, time, one]), do.integers(1)])  # (T, 1)
        inside = do("Less", [steps, do("Cast", [lengths], to=_INT64)])  # (T, B)
        return do("Unsqueeze", [inside, do.integers(2)])

    def _start(self, initial: ir.Value | None, direction: int) -> ir.Value:
        """A state in front of the first step (B, H)."""
        do = self.do
        if initial is not None:
            return do("Gather", [initial, do.constant(np.array(direction, np.int64))], axis=0)
        batch = do("Shape", [self.x], start=1, end=2)
        sizes = do("Concat", [batch, do.integers(self.size)], axis=0)
        return do("Expand", [do.constant(np.zeros((1, 1), np.float32)), sizes])

    def _direction(self, direction: int, backward: bool, valid: ir.Value | None) -> list[ir.Value]:
        """Y (T, B, H) and the last states (B, H) of one direction."""
        do, size, gates = self.do, self.size, self.recurrent.gates
        assert self.w is not None
        assert self.r is not None
        recurrent_name, activation = str(self.r.name), self.recurrent.activations(direction)[0]
        of_inputs, of_state = self.recurrent.biases(direction)
        apart = gates.operator == "GRU"  # its reset gate scales the bias of the state
        sums = self.products.product(
            do, self.x, str(self.w.name), of_inputs if apart else of_inputs + of_state, direction
        )  # (T, B, G * H)
        sequences = do.several("Split", [sums, do.integers(2 * size, size)], 2, axis=-1) if apart else [sums]
        states = [self._start(self.recurrent.input(name), direction) for name in gates.states]

        def step(body: Builder, states: Sequence[ir.Value], elements: Sequence[ir.Value]) -> list[ir.Value]:
            bias = of_state if apart else None
            product = self.products.product(body, states[0], recurrent_name, bias, direction, one_position=True)
            if gates.operator == "GRU":
                of_gates, of_new = body.several("Split", [product, body.integers(2 * size, size)], 2, axis=-1)
                total, inputs = body("Add", [of_gates, elements[0]]), elements[1]
                return cells.gru(body, total, inputs, states[0], lambda _: of_new, size, gates.onnx_gates)
            total = body("Add", [product, elements[0]])
            if gates.operator == "LSTM":
                return cells.lstm(body, total, states[1], size, gates.onnx_gates)
            return cells.rnn(body, total, activation)

        body, name = self.products.builder(), self.products.names.new("q.body")
        *last, y = layer_scan(do, body, step, states, sequences, valid, backward=backward, name=name)
        if valid is not None:
            y = do("Where", [valid, y, do.constant(np.zeros((), np.float32))])
        return [y, *last]

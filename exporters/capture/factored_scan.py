"""Replaces the placeholders of `factored_recurrent` by `Scan` operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from compressor.gates import BY_MODE
from compressor.onnx_graphs import cells
from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.onnx_graphs.scans import layer_scan
from exporters.capture.factored_recurrent import PLACEHOLDER, PLACEHOLDER_DOMAIN, body_order, keeps_products_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.gates import CellGates
    from compressor.onnx_graphs.scans import Step


class ExpandFactored(ir.passes.InPlacePass):
    """Replaces the placeholder of every factored recurrent layer by a `Scan`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        modified = False
        for index, node in enumerate(list(model.graph)):
            if node.domain == PLACEHOLDER_DOMAIN and node.op_type == PLACEHOLDER:
                _expand(model.graph, node, f"scan_{index}")
                modified = True
        model.opset_imports.pop(PLACEHOLDER_DOMAIN, None)
        return ir.passes.PassResult(model, modified)


def _expand(graph: ir.Graph, node: ir.Node, name: str) -> None:
    projected, masked, backward = (node.attributes[word].as_int() for word in ("projected", "masked", "backward"))
    gates = BY_MODE[node.attributes["mode"].as_string()]
    first = len(gates.states)
    last = first + 1 + keeps_products_apart(gates)
    inputs = list(node.inputs)
    states, sequences, valid = inputs[:first], inputs[first:last], inputs[last] if masked else None
    weights = [value for value in inputs[last + masked :] if value is not None]
    names = Names.of(graph)
    do, body = Builder(names, name), Builder(names, name, constant_nodes=True)
    step = _step(gates, weights, projected=bool(projected))
    replace(node, do, layer_scan(do, body, step, states, sequences, valid, backward=bool(backward), name=name))


def _step(gates: CellGates, weights: Sequence[ir.Value], *, projected: bool) -> Step:
    """One step of a layer whose sums are W x + U (D h) + b, by its operator; a projected LSTM has P and no D."""
    order = [gates.gates[place].name for place in body_order(gates)]

    def rnn(body: Builder, states: Sequence[ir.Value], steps: Sequence[ir.Value]) -> list[ir.Value]:
        down, up = weights
        total = body("Gemm", [body("MatMul", [states[0], down]), up, steps[0]])
        return cells.rnn(body, total, gates.activations[0])

    def gru(body: Builder, states: Sequence[ir.Value], steps: Sequence[ir.Value]) -> list[ir.Value]:
        down, up, up_new, bias = weights
        low = body("MatMul", [states[0], down])
        total = body("Gemm", [low, up, steps[0]])
        return cells.gru(
            body, total, steps[1], states[0], lambda _: body("Gemm", [low, up_new, bias]), _columns(up_new), order
        )

    def lstm(body: Builder, states: Sequence[ir.Value], steps: Sequence[ir.Value]) -> list[ir.Value]:
        down, up = weights
        total = body("Gemm", [body("MatMul", [states[0], down]), up, steps[0]])
        return cells.lstm(body, total, states[1], _columns(up) // 4, order)

    def projected_lstm(body: Builder, states: Sequence[ir.Value], steps: Sequence[ir.Value]) -> list[ir.Value]:
        up, out = weights
        total = body("Gemm", [states[0], up, steps[0]])
        high, cell = cells.lstm(body, total, states[1], _columns(up) // 4, order)
        return [body("MatMul", [high, out]), cell]

    return projected_lstm if projected else {"RNN": rnn, "GRU": gru, "LSTM": lstm}[gates.operator]


def _columns(matrix: ir.Value) -> int:
    assert matrix.shape is not None
    columns = matrix.shape[1]
    assert isinstance(columns, int)
    return columns

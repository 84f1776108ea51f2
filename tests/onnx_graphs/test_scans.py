"""A recurrent layer as a Scan, and a Scan as plain operations, give what the native node gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compressor.onnx_graphs import cells
from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.onnx_graphs.recurrent_node import RecurrentNode
from compressor.onnx_graphs.scans import layer_scan
from compressor.onnx_graphs.unrolling import scans
from compressor.onnx_graphs.unrolling.rows import stacked
from compressor.runtimes.session import open_session
from tests.onnx_graphs.graphs import B, H, T, recurrent


def outputs(proto, feed):
    onnx.checker.check_model(proto, full_check=True)
    return open_session(proto.SerializeToString()).run(None, feed)


def with_scan(proto):
    """The graph with a Scan instead of its recurrent node, which has one direction and no bias."""
    model = ir.from_proto(proto)
    node = model.graph[0]
    layer, names = RecurrentNode(node), Names.of(model.graph)
    do, body = Builder(names, "layer"), Builder(names, "body")
    w, r = (do.constant(matrix.T.copy()) for matrix in layer.weights(0))
    sums = do("MatMul", [node.inputs[0], w])
    states = [do.constant(np.zeros((B, H), np.float32)) for _ in layer.gates.states]

    def step(body, states, elements):
        total = body("Add", [body("MatMul", [states[0], r]), elements[0]])
        if node.op_type == "LSTM":
            return cells.lstm(body, total, states[1], H, layer.gates.onnx_gates)
        return cells.rnn(body, total, layer.activations(0)[0])

    *last, y = layer_scan(do, body, step, states, [sums], None, backward=layer.backward[0], name="body")
    replace(node, do, [stacked(do, [y], 1), *(stacked(do, [state]) for state in last)])
    return model


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("operator", "more"), [("LSTM", {}), ("RNN", {"activations": ["Relu"]})])
def test_a_layer_as_a_scan_and_the_scan_unrolled_give_the_same(operator, more, direction):
    proto = recurrent(operator, direction=direction, bias=False, time=T, **more)
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim:
        if dimension.dim_param == "batch":
            dimension.dim_value = B
    feed = {"x": np.random.default_rng(1).normal(size=(T, B, 4)).astype(np.float32)}
    expected = outputs(proto, feed)
    model = with_scan(proto)
    for actual, wanted in zip(outputs(ir.to_proto(model), feed), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-6)
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True))
    assert scans.unroll(inferred) == 1
    assert "Scan" not in {node.op_type for node in inferred.graph.all_nodes()}
    for actual, wanted in zip(outputs(ir.to_proto(inferred), feed), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_a_scan_of_unknown_length_stays():
    model = with_scan(recurrent("LSTM", bias=False))
    assert scans.unroll(model) == 0

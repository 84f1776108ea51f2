"""Weights of a graph of onnx-ir that became a message."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from exporters.passes import release
from tests.onnx_graphs.graphs import model


def branching():
    """An If, one of whose branches has a weight of its own; a weight outside is read by both."""
    result = helper.make_tensor_value_info("b", TensorProto.FLOAT, [7])
    own = [numpy_helper.from_array(np.arange(7, dtype=np.float32), "inner")]
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Add", ["w", "inner"], ["b"])], "then", [], [result], own),
        "else_branch": helper.make_graph([helper.make_node("Abs", ["w"], ["b"])], "else", [], [result]),
    }
    nodes = [helper.make_node("If", ["go"], ["y"], **branches)]
    return model(nodes, {"go": ([], TensorProto.BOOL)}, {"y": 1}, {"w": np.ones(7, np.float32)})


def test_weights_of_the_graph_and_of_bodies_are_gone_before_garbage_is_collected():
    proto = branching()
    graph = ir.from_proto(proto)
    held = []
    for each in (graph.graph, *graph.graph.subgraphs()):
        for value in each.initializers.values():
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
            held.append(weakref.ref(value.const_value))
    gc.disable()
    try:
        message = release.to_proto(graph)
        del graph, each, value
        assert [weight() for weight in held] == [None, None]
    finally:
        gc.enable()
    onnx.checker.check_model(message, full_check=True)
    assert {tensor.name for tensor in message.graph.initializer} == {"w"}
    assert message.SerializeToString(deterministic=True) == ir.to_proto(ir.from_proto(proto)).SerializeToString(
        deterministic=True
    )

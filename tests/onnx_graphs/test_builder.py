"""The builder of nodes: names of their own, constants, and the exchange of a node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from compressor.onnx_graphs.builder import Builder, Names, first_name, replace
from tests.onnx_graphs.graphs import model


def relu():
    node = helper.make_node("Relu", ["x"], ["y"], name="first")
    return ir.from_proto(model([node, helper.make_node("Neg", ["y"], ["z"])], {"x": [2, 3]}, {"y": 2, "z": 2}))


def test_a_name_that_is_taken_gets_a_number():
    names = Names(["gate", "gate.2"])
    assert [names.new("gate"), names.new("gate"), names.new("sum")] == ["gate.3", "gate.4", "sum"]


def test_names_of_a_graph_include_those_of_bodies_and_weights():
    body = ir.Graph([ir.Value(name="inner")], [], nodes=[])
    weight = ir.Value(name="W", const_value=ir.tensor(np.zeros(1, np.float32)))
    node = ir.node("Scan", [], {"body": body, "num_scan_inputs": 1})
    node.outputs[0].name = "out"
    names = Names.of(ir.Graph([], [], nodes=[node], initializers=[weight]))
    assert [names.new(name) for name in ("inner", "W", "out")] == ["inner.2", "W.2", "out.2"]


def test_a_replacement_keeps_name_and_readers_and_adds_its_constants():
    changed = relu()
    node = changed.graph[0]
    do = Builder(Names.of(changed.graph), "plain")
    replace(node, do, [do("Max", [node.inputs[0], do.constant(np.zeros(1, np.float32))])])
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    assert [(node.op_type, list(node.output)) for node in proto.graph.node] == [("Max", ["y"]), ("Neg", ["z"])]
    assert [tensor.name for tensor in proto.graph.initializer] == ["plain.constant"]


def test_equal_integers_are_one_constant_or_one_node():
    do, body = Builder(), Builder(constant_nodes=True)
    assert do.integers(1, 2) is do.integers(1, 2)
    assert len(do.initializers) == 1
    assert body.integers(3) is body.integers(3)
    assert [node.op_type for node in body.nodes] == ["Constant"]


def test_a_node_is_called_by_its_first_output_that_has_a_name():
    node = ir.node("Split", [ir.Value(name="x")], num_outputs=2)
    node.outputs[0].name, node.outputs[1].name = "", "second"
    assert first_name(node) == "second"

"""The walker: every node once, with those in bodies and functions."""

from __future__ import annotations

from onnx import TensorProto, helper

from compressor.onnx_graphs import walk
from tests.onnx_graphs.graphs import model


def branching():
    """An If whose branches read a value of the graph around them."""
    result = helper.make_tensor_value_info("b", TensorProto.FLOAT, [3])
    branches = {
        name: helper.make_graph([helper.make_node(operator, ["h"], ["b"])], name, [], [result])
        for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("If", ["go"], ["y"], **branches)]
    return model(nodes, {"x": [3], "go": ([], TensorProto.BOOL)}, {"y": 1})


def test_every_node_comes_once_and_in_order():
    assert [node.op_type for node in walk.nodes(branching().graph)] == ["Relu", "If", "Abs", "Neg"]
    assert len(list(walk.graphs(branching().graph))) == 3


def test_the_nodes_of_functions_are_those_of_the_model():
    proto = branching()
    twice = helper.make_node("Add", ["a", "a"], ["b"])
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [twice], [helper.make_opsetid("", 18)]))
    assert [node.op_type for node in walk.nodes_of_model(proto)][-1] == "Add"


def test_a_node_reads_what_its_bodies_read():
    branch = branching().graph.node[1]
    assert {"go", "h"} <= set(walk.reads(branch))


def test_who_writes_and_who_reads_a_value():
    graph = branching().graph
    assert walk.writers(graph)["h"].op_type == "Relu"
    assert [node.op_type for node in walk.readers(graph)["go"]] == ["If"]


def test_an_operator_of_another_domain_is_named_with_it():
    assert walk.operator(helper.make_node("MatMulNBits", [], ["y"], domain="com.microsoft")) == (
        "com.microsoft:MatMulNBits"
    )
    assert walk.operator(helper.make_node("Add", [], ["y"], domain="ai.onnx")) == "Add"
    assert walk.opset(branching()) == 18

"""The passes of every graph: each says whether it changed anything, and their order depends on opset and loops."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_ir.passes.common import IdentityEliminationPass

from exporters.passes.attention_masks import SilenceMaskedRows, WidenAttentionMasks
from exporters.passes.body_outputs import GiveBodyOutputsNodes
from exporters.passes.cut_padding import DropCutPadding
from exporters.passes.folding import FoldConstants
from exporters.passes.shared_weights import ShareWeights
from exporters.passes.single_entries import SqueezeSingleEntries
from exporters.passes.split_sizes import GiveSplitsSizes
from exporters.passes.tidy import passes_for
from exporters.passes.zero_states import DropZeroStates
from tests.onnx_graphs.graphs import B, H, model, recurrent


def names(passes):
    return [type(graph_pass).__name__ for graph_pass in passes]


def attention():
    inputs = {name: [2, 2, "time", 4] for name in ("q", "k", "v")} | {"mask": ([2, 1, 1, "time"], TensorProto.BOOL)}
    return model([helper.make_node("Attention", list(inputs), ["y"])], inputs, {"y": 4}, opset=23)


def masked_weights():
    nodes = [
        helper.make_node("Where", ["mask", "zero", "least"], ["added"]),
        helper.make_node("Add", ["scores", "added"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("IsNaN", ["weights"], ["wrong"]),
        helper.make_node("Where", ["wrong", "zero", "weights"], ["y"]),
    ]
    inputs = {"scores": [2, 3, 4], "mask": ([3, 4], TensorProto.BOOL)}
    return model(nodes, inputs, {"y": 3}, {"zero": np.float32(0), "least": np.finfo(np.float32).min})


def constant_sum():
    weights = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return model(nodes, {"x": [3]}, {"y": 1}, weights)


def tied():
    matrix = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("MatMul", ["h", "V"], ["y"])]
    return model(nodes, {"x": [2, 9]}, {"y": 2}, {"W": matrix, "V": matrix.T.copy()})


def one_entry():
    node = helper.make_node("GatherND", ["x", "places"], ["y"])
    return model([node], {"x": [1, 1, 5]}, {"y": 2}, {"places": np.zeros((1, 2), np.int64)})


def split():
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    return model([node], {"x": [5]}, {"a": 1, "b": 1})


def zero_states():
    proto = recurrent("GRU", states=True)
    del proto.graph.input[1]
    proto.graph.initializer.append(
        helper.make_tensor("h", TensorProto.FLOAT, [1, B, H], np.zeros(B * H, np.float32).tolist())
    )
    return proto


def padded(pads=(0, 2, 0, 1), starts=(2,), ends=(5,), axes=(1,), size=3):
    weights = {name: np.array(value) for name, value in (("p", pads), ("s", starts), ("e", ends), ("a", axes))}
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["padded"]),
        helper.make_node("Slice", ["padded", "s", "e", "a"], ["cut"]),
        helper.make_node("Relu", ["cut"], ["y"]),
    ]
    return model(nodes, {"x": [2, size]}, {"y": 2}, weights)


def handed_through():
    """An `If` whose branches give what was computed in front of it, as it is after identities have been eliminated."""
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [3])
    branches = [
        helper.make_graph(
            [helper.make_node("Identity", [value], [f"{value}.same"])],
            "g",
            [],
            [helper.make_value_info(f"{value}.same", kind)],
        )
        for value in ("sum", "product")
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["sum"]),
        helper.make_node("Mul", ["x", "x"], ["product"]),
        helper.make_node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    return model(nodes, {"x": [3], "which": ([], TensorProto.BOOL)}, {"y": 1})


@pytest.mark.parametrize(
    ("graph_pass", "proto"),
    [
        (SilenceMaskedRows(), masked_weights()),
        (WidenAttentionMasks(), attention()),
        (FoldConstants(), constant_sum()),
        (ShareWeights(), tied()),
        (SqueezeSingleEntries(), one_entry()),
        (GiveSplitsSizes(), split()),
        (DropZeroStates(), zero_states()),
        (DropCutPadding(), padded()),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_pass_says_whether_it_changed_anything(graph_pass, proto):
    graph = ir.from_proto(proto)
    assert graph_pass(graph).modified
    assert not graph_pass(graph).modified


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({}, True),
        ({"ends": (-1,)}, True),
        ({"axes": (-1,)}, True),
        ({"pads": (0, 0, 0, 4), "starts": (0,), "ends": (-4,)}, True),
        ({"pads": (0, 2, 0, 0), "ends": (2**63 - 1,)}, True),
        ({"pads": (1, 2, 0, 0), "starts": (1, 2), "ends": (3, 5), "axes": (0, 1)}, True),
        ({"starts": (1,)}, False),
        ({"ends": (6,)}, False),
        ({"ends": (4,)}, False),
        ({"pads": (1, 2, 0, 1)}, False),
        ({"size": "time"}, False),
    ],
    ids=str,
)
def test_padding_goes_if_all_of_it_is_cut_off_and_nothing_else(options, dropped):
    proto = padded(**options)
    graph = ir.from_proto(proto)
    assert DropCutPadding()(graph).modified == dropped
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    files = [onnxruntime.InferenceSession(one.SerializeToString()) for one in (proto, ir.to_proto(graph))]
    before, after = (session.run(None, {"x": x})[0] for session in files)
    assert np.array_equal(before, after)


def test_a_branch_that_hands_a_value_through_stays_valid():
    graph = ir.from_proto(handed_through())
    IdentityEliminationPass()(graph)
    assert GiveBodyOutputsNodes()(graph).modified
    assert not GiveBodyOutputsNodes()(graph).modified
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    session, x = onnxruntime.InferenceSession(proto.SerializeToString()), np.array([1, 2, 3], np.float32)
    for which, expected in ((True, x + x), (False, x * x)):
        assert session.run(None, {"x": x, "which": np.array(which)})[0].tolist() == expected.tolist()


def test_what_an_opset_needs_no_pass_for_has_none():
    assert "GiveSplitsSizes" in names(passes_for(17))
    assert "GiveSplitsSizes" not in names(passes_for(18))
    assert "WidenAttentionMasks" in names(passes_for(23))
    assert "WidenAttentionMasks" not in names(passes_for(22))


def test_loops_become_scans_before_anything_looks_at_their_bodies():
    with_loops = names(passes_for(18, [], lambda body: ir.from_proto(constant_sum())))
    assert with_loops.index("ExpandLoops") < with_loops.index("DropZeroStates")
    assert "ExpandLoops" not in names(passes_for(18))

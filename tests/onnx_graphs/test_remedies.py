"""Every remedy gives a graph that computes the same, and that the target takes more of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.tools.mobile_helpers import usability_checker

from compressor.errors import ExportError, UsageError
from compressor.onnx_graphs import comparison, targets
from compressor.onnx_graphs.axes import open_axes
from compressor.onnx_graphs.partition import survey
from compressor.onnx_graphs.remedies import fix
from compressor.runtimes.onnx_runtime import OnnxFile
from tests.onnx_graphs.graphs import B, H, T, model, recurrent

NNAPI = targets.get("nnapi")
RECURRENT = {
    "rnn": recurrent("RNN"),
    "relu, both directions": recurrent("RNN", direction="bidirectional", activations=["Relu"] * 2),
    "gru": recurrent("GRU", linear_before_reset=1, states=True),
    "gru, reset before": recurrent("GRU", direction="reverse", bias=False),
    "gru, lengths": recurrent("GRU", direction="bidirectional", linear_before_reset=1, lengths=True, states=True),
    "lstm": recurrent("LSTM", bias=False),
    "lstm, lengths": recurrent("LSTM", direction="bidirectional", lengths=True, states=True),
    "lstm, one position": recurrent("LSTM", time=1, direction="reverse"),
}


def fixed(proto, target, tmp_path, **shapes):
    """The changed graph, its remedies, and what the target takes of it; both graphs give the same."""
    result = fix(proto, target, shapes)
    onnx.save(proto, tmp_path / "old.onnx")
    onnx.save(result.proto, tmp_path / "new.onnx")
    old, new = OnnxFile(tmp_path / "old.onnx"), OnnxFile(tmp_path / "new.onnx")
    compared = comparison.compare(old, new, result.shapes, comparison.masks(proto))
    assert len(compared) == 4
    return result, survey(result.proto, target)


def operators(proto):
    return {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_node_becomes_plain_operations_that_give_the_same(tmp_path, name):
    proto = RECURRENT[name]
    shapes = {"batch": B} | ({"time": T} if "time" in open_axes(proto) else {})
    result, found = fixed(proto, targets.get("qnn") if "lstm" not in name else NNAPI, tmp_path, **shapes)
    assert not {"RNN", "GRU", "LSTM"} & operators(result.proto)
    assert result.shapes == shapes
    of_lengths = [
        refusal for refusal in found.refusals if "bool" in refusal.reason or refusal.operator in ("Less", "Where")
    ]
    assert list(found.refusals) == of_lengths


def test_a_layer_normalisation_and_a_sum_become_plain_operations(tmp_path):
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["n"], axis=-2, epsilon=1e-3),
        helper.make_node("ReduceSum", ["n", "axes"], ["y"], keepdims=0),
    ]
    weights = {
        "scale": np.random.default_rng(0).normal(size=(7, H)).astype(np.float32),
        "bias": np.ones((7, H), np.float32),
        "axes": np.array([0, 2]),
    }
    result, found = fixed(model(nodes, {"x": ["batch", 7, H]}, {"y": 1}, weights), NNAPI, tmp_path, batch=3)
    assert not found.refusals
    assert found.taken == found.nodes == len([n for n in result.proto.graph.node if n.op_type != "Constant"])


@pytest.mark.parametrize("mask", [None, TensorProto.BOOL, TensorProto.FLOAT])
@pytest.mark.parametrize("scale", [{}, {"scale": 0.3}])
def test_attention_becomes_plain_operations_and_the_opset_is_lowered(tmp_path, mask, scale):
    inputs = {name: ["batch", 2, "time", 4] for name in ("q", "k", "v")}
    if mask is not None:
        inputs["mask"] = (["time", "time"], mask)
    node = helper.make_node("Attention", list(inputs), ["y"], **scale)
    result, found = fixed(model([node], inputs, {"y": 4}, opset=23), targets.get("mnn"), tmp_path)
    assert result.proto.opset_import[0].version == 18
    assert "Softmax" in operators(result.proto)
    assert not found.refusals
    assert not result.shapes


@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.FLOAT])
@pytest.mark.parametrize("constant", [True, False])
def test_rows_of_a_mask_that_hide_everything_give_zeros(tmp_path, kind, constant):
    mask = np.array([[True, False, True], [False, False, False], [True, True, True]])
    if kind == TensorProto.FLOAT:
        mask = np.where(mask, 0.5, -np.inf).astype(np.float32)
    inputs = {name: ["batch", 2, 3, 4] for name in ("q", "k", "v")}
    node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"])
    given = inputs if constant else inputs | {"mask": ([3, 3], kind)}
    proto = model([node], given, {"y": 4}, {"mask": mask} if constant else None, opset=23)
    result, _ = fixed(proto, targets.get("mnn"), tmp_path)
    assert "Attention" not in operators(result.proto)
    feed = dict.fromkeys("qkv", np.ones((1, 2, 3, 4), np.float32)) | ({} if constant else {"mask": mask})
    (y,) = onnxruntime.InferenceSession(tmp_path / "new.onnx").run(None, feed)
    assert y[0, 0].tolist() == [[1] * 4, [0] * 4, [1] * 4]


def test_a_mean_instead_of_zeros_for_a_hidden_row_is_found(tmp_path):
    inputs = {name: ["batch", 2, "time", 4] for name in ("q", "k", "v")} | {
        "mask": (["time", "time"], TensorProto.FLOAT)
    }
    attention = helper.make_node("Attention", list(inputs), ["y"], scale=1.0)
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["scores"]),
        helper.make_node("Max", ["mask", "lowest"], ["bounded"]),
        helper.make_node("Add", ["scores", "bounded"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["weights"]),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    proto = model([attention], inputs, {"y": 4}, opset=23)
    onnx.save(proto, old)
    onnx.save(model(nodes, inputs, {"y": 4}, {"lowest": np.float32(-1e9)}), new)
    with pytest.raises(ExportError, match="the changed file is wrong"):
        comparison.compare(OnnxFile(old), OnnxFile(new), {}, comparison.masks(proto))


@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_a_node_without_a_name_of_which_only_the_last_state_is_read_is_unrolled(tmp_path, operator):
    proto = recurrent(operator)
    node = proto.graph.node[0]
    node.name, node.output[0] = "", ""
    del proto.graph.output[0]
    _, found = fixed(proto, NNAPI, tmp_path, time=T)
    assert found.nodes > 20
    assert not found.refusals


def test_the_graph_that_was_given_stays_as_it_was():
    proto = recurrent("LSTM")
    before = proto.SerializeToString(deterministic=True)
    fix(proto, NNAPI, {"time": 3})
    assert proto.SerializeToString(deterministic=True) == before


def test_what_would_not_help_is_not_done_and_said(tmp_path):
    result, found = fixed(recurrent("GRU"), targets.get("xnnpack"), tmp_path)
    remedy = next(remedy for remedy in result.remedies if not remedy.applied)
    assert remedy.why_not == "GRU: xnnpack would not take Add either"
    assert found.taken == 0


@pytest.mark.parametrize(
    ("proto", "why"),
    [
        (recurrent("LSTM", clip=1.0), "LSTM: it has peepholes, a clip or another layout"),
        (recurrent("GRU", activations=["Tanh", "Tanh"]), "GRU: it has activations of its own"),
        (recurrent("RNN", time=300), "RNN: its length is 300, and 256 is the most that is unrolled"),
    ],
)
def test_a_node_that_cannot_be_unrolled_stays_with_the_reason(tmp_path, proto, why):
    result, found = fixed(proto, NNAPI, tmp_path)
    assert [remedy.why_not for remedy in result.remedies if not remedy.applied] == [why]
    assert found.refusals


def test_an_axis_that_the_file_does_not_have_is_refused():
    with pytest.raises(UsageError, match=r"`frames` is not an open axis of the file, which has time, batch"):
        fix(recurrent("GRU"), NNAPI, {"frames": 3})


def test_files_that_differ_are_found(tmp_path):
    onnx.save(recurrent("LSTM"), tmp_path / "old.onnx")
    other = recurrent("LSTM")
    weight = onnx.numpy_helper.to_array(other.graph.initializer[0]).copy()
    weight[0, 0, 0] += 0.1
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "W"))
    onnx.save(other, tmp_path / "new.onnx")
    old, new = OnnxFile(tmp_path / "old.onnx"), OnnxFile(tmp_path / "new.onnx")
    with pytest.raises(ExportError, match="the changed file is wrong: in ONNX Runtime its output 0 is off by"):
        comparison.compare(old, new, {})


@pytest.mark.parametrize("name", ["nnapi", "coreml"])
@pytest.mark.parametrize("graph", ["lstm", "lstm, one position", "gru, lengths"])
def test_what_is_taken_is_what_onnxruntimes_own_checker_says(name, graph):
    proto = RECURRENT[graph]
    proto = fix(proto, NNAPI, {"batch": 2} | ({"time": 3} if "time" in open_axes(proto) else {})).proto
    shaped = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    if name == "nnapi":
        theirs = usability_checker.check_nnapi_partitions(shaped, True)
    else:
        theirs = usability_checker.check_coreml_partitions(shaped, True, "coreml_supported_mlprogram_ops.md")
    ours = survey(proto, replace(targets.get(name), rules={}, every=()))  # theirs looks at operators and sizes only
    constants = sum(node.op_type == "Constant" for node in proto.graph.node)
    assert (ours.nodes, ours.taken) == (theirs.num_nodes - constants, theirs.num_supported_nodes)


@pytest.mark.parametrize("name", targets.names())
def test_every_target_names_its_source(name):
    target = targets.get(name)
    assert target.source
    assert target.title
    assert survey(recurrent("LSTM"), target).nodes == 1


def test_silent_errors_of_phone_runtimes_are_refusals():
    relu, started = recurrent("RNN", activations=["Relu"]), recurrent("RNN", states=True, time=3)
    for name in ("ncnn", "mnn"):
        assert "as if it were tanh" in survey(relu, targets.get(name)).refusals[0].reason
        assert not survey(recurrent("RNN"), targets.get(name)).refusals
    assert "initial state is ignored" in survey(started, targets.get("litert")).refusals[0].reason

"""Each rule of a target, as its runtime publishes it, refuses a node that breaks it and takes one that does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.onnx_graphs import failures, rules, targets
from compressor.onnx_graphs.partition import survey
from tests.onnx_graphs.graphs import recurrent

F, I32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL


def of(*shape, kind=F):
    return kind, list(shape)


def constant(array, kind=np.float32):
    return np.asarray(array, kind)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def node(operator, *inputs, outputs=1, domain="", **attributes):
    """A graph of one node: an input is a type and a shape, or a constant array."""
    names = [f"i{place}" if value is not None else "" for place, value in enumerate(inputs)]
    given = [
        helper.make_tensor_value_info(name, *value)
        for name, value in zip(names, inputs, strict=True)
        if isinstance(value, tuple)
    ]
    weights = [
        numpy_helper.from_array(value, name)
        for name, value in zip(names, inputs, strict=True)
        if isinstance(value, np.ndarray)
    ]
    results = [f"o{place}" for place in range(outputs)]
    made = helper.make_node(operator, names, results, domain=domain, **attributes)
    graph = helper.make_graph([made], "g", given, [onnx.ValueInfoProto(name=name) for name in results], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    )


X4, X3 = of(1, 3, 8, 8), of(1, 3, 8)
U8, SCALE, ZERO = of(1, 3, 8, 8, kind=TensorProto.UINT8), constant(0.1), constant(0, np.uint8)
W4, W3 = zeros(5, 3, 3, 3), zeros(5, 3, 3)
CASES = {
    # target, rule: what is taken, what is refused, words of the reason
    "nnapi Conv rank": (node("Conv", X4, W4), node("Conv", X3, W3), "only 2D convolutions"),
    "nnapi Conv weight": (node("Conv", X4, W4), node("Conv", X4, of(5, 3, 3, 3)), "weight or bias is not constant"),
    "nnapi Conv bias": (node("Conv", X4, W4, zeros(5)), node("Conv", X4, W4, of(5)), "weight or bias is not constant"),
    "nnapi MaxPool": (
        node("MaxPool", X4, kernel_shape=[2, 2]),
        node("MaxPool", X3, kernel_shape=[2]),
        "only pooling over two axes",
    ),
    "nnapi GlobalAveragePool": (node("GlobalAveragePool", X4), node("GlobalAveragePool", X3), "only pooling over two"),
    "nnapi QuantizeLinear": (
        node("QuantizeLinear", X4, SCALE, ZERO),
        node("QuantizeLinear", X4, of(), ZERO),
        "scales or zero points are not",
    ),
    "nnapi DequantizeLinear": (
        node("DequantizeLinear", of(3, kind=I32), SCALE),
        node("DequantizeLinear", of(3, kind=I32), of()),
        "scales or zero points are not constant",
    ),
    "nnapi Gather": (
        node("Gather", X4, of(2, kind=I32)),
        node("Gather", X4, of(2, kind=I64)),
        "indices are computed and not int32",
    ),
    "nnapi Gemm": (node("Gemm", of(2, 3), of(4, 3), transB=1), node("Gemm", of(2, 3), of(3, 4)), "not transposed"),
    "nnapi Pad mode": (
        node("Pad", X4, constant([0] * 8, np.int64)),
        node("Pad", X4, constant([0] * 8, np.int64), mode="reflect"),
        "its `mode` is reflect, and only constant is taken",
    ),
    "nnapi Pad computed": (
        node("Pad", X4, constant([0] * 8, np.int64)),
        node("Pad", X4, of(8, kind=I64)),
        "pads or value are not constant",
    ),
    "nnapi Pad negative": (
        node("Pad", X4, constant([1] * 8, np.int64)),
        node("Pad", X4, constant([-1] + [0] * 7, np.int64)),
        "its pads are negative",
    ),
    "nnapi Resize": (
        node("Resize", X4, None, constant([1, 1, 2, 2])),
        node("Resize", X3, None, constant([1, 1, 2])),
        "only 2D resizing",
    ),
    "nnapi Split sizes": (
        node("Split", of(6), constant([3, 3], np.int64), outputs=2, axis=0),
        node("Split", of(6), constant([4, 2], np.int64), outputs=2, axis=0),
        "parts are not of one size",
    ),
    "nnapi Split count": (
        node("Split", of(6), outputs=2, axis=0, num_outputs=2),
        node("Split", of(5), outputs=2, axis=0, num_outputs=2),
        "parts are not of one size",
    ),
    "nnapi Split computed": (
        node("Split", of(6), constant([3, 3], np.int64), outputs=2),
        node("Split", of(6), of(2, kind=I64), outputs=2),
        "sizes are not constant",
    ),
    "nnapi Squeeze": (
        node("Squeeze", of(1, 3), constant([0], np.int64)),
        node("Squeeze", of(1, 3), of(1, kind=I64)),
        "axes are not",
    ),
    "nnapi Unsqueeze": (
        node("Unsqueeze", of(3), constant([0], np.int64)),
        node("Unsqueeze", of(3), of(1, kind=I64)),
        "axes are not",
    ),
    "nnapi DepthToSpace": (
        node("DepthToSpace", of(1, 8, 3, 3), blocksize=2),
        node("DepthToSpace", of(1, 8, 3, 3), blocksize=2, mode="CRD"),
        "its `mode` is CRD",
    ),
    "nnapi type": (node("Relu", of(3)), node("Transpose", of(3, 4, kind=BOOL)), "its first input is bool"),
    "nnapi QLinearConv": (
        node("QLinearConv", U8, SCALE, ZERO, constant(W4, np.uint8), SCALE, ZERO, SCALE, ZERO),
        node("QLinearConv", U8, SCALE, ZERO, constant(W4, np.uint8), of(), ZERO, SCALE, ZERO),
        "scales or zero points are not constant",
    ),
    "nnapi com.microsoft:QLinearSigmoid": (
        node("QLinearSigmoid", U8, SCALE, ZERO, SCALE, ZERO, domain="com.microsoft"),
        node("QLinearSigmoid", U8, of(), ZERO, SCALE, ZERO, domain="com.microsoft"),
        "scales or zero points are not constant",
    ),
    "coreml Conv rank": (node("Conv", X3, W3), node("Conv", of(1, 3, 8, 8, 8), zeros(5, 3, 3, 3, 3)), "1D and 2D"),
    "coreml Conv bias": (node("Conv", X4, W4, zeros(5)), node("Conv", X4, W4, of(5)), "bias is not constant"),
    "coreml ConvTranspose": (
        node("ConvTranspose", X4, zeros(3, 5, 3, 3)),
        node("ConvTranspose", X4, zeros(3, 5, 3, 3), auto_pad="SAME_UPPER"),
        "its `auto_pad` is SAME_UPPER",
    ),
    "coreml ConvTranspose output": (
        node("ConvTranspose", X4, zeros(3, 5, 3, 3), output_padding=[0, 0]),
        node("ConvTranspose", X4, zeros(3, 5, 3, 3), output_padding=[1, 1]),
        "its `output_padding` is given",
    ),
    "coreml ConvTranspose shape": (
        node("ConvTranspose", X4, zeros(3, 5, 3, 3)),
        node("ConvTranspose", X4, zeros(3, 5, 3, 3), output_shape=[9, 9]),
        "its `output_shape` is given",
    ),
    "coreml AveragePool": (
        node("AveragePool", X4, kernel_shape=[2, 2]),
        node("AveragePool", X3, kernel_shape=[2]),
        "only pooling over two",
    ),
    "coreml And": (node("And", of(3, kind=BOOL), of(3, kind=BOOL)), node("And", of(3), of(3)), "only bool is taken"),
    "coreml GatherND": (
        node("GatherND", X3, constant([[0]], np.int64)),
        node("GatherND", X3, constant([[0]], np.int64), batch_dims=1),
        "its `batch_dims` is 1",
    ),
    "coreml Gemm": (node("Gemm", of(2, 3), zeros(3, 4)), node("Gemm", of(2, 3), of(3, 4)), "second input is not"),
    "coreml GridSample": (
        node("GridSample", X4, of(1, 4, 4, 2), mode="linear"),
        node("GridSample", X4, of(1, 4, 4, 2), mode="cubic"),
        "its `mode` is cubic",
    ),
    "coreml Pow": (node("Pow", of(3), of(3)), node("Pow", of(3), of(3, kind=I32)), "only float32 is taken"),
    "coreml Slice": (
        node("Slice", of(9), *[constant([1], np.int64)] * 2),
        node("Slice", of(9), constant([1], np.int64), of(1, kind=I64)),
        "bounds, axes or steps are not constant",
    ),
    "coreml Split": (
        node("Split", of(6), constant([4, 2], np.int64), outputs=2),
        node("Split", of(6), of(2, kind=I64), outputs=2),
        "sizes are not constant",
    ),
    "coreml Tile": (
        node("Tile", of(1, 2), constant([2, 2], np.int64)),
        node("Tile", of(1, 1, 1, 1, 1, 2), constant([2] * 6, np.int64)),
        "at most 5 axes",
    ),
    "coreml Where": (
        node("Where", of(3, kind=BOOL), of(3), of(3)),
        node("Where", of(3, kind=BOOL), of(3, kind=I64), of(3, kind=I64)),
        "only float32 or float16",
    ),
    "xnnpack Conv": (node("Conv", X3, W3), node("Conv", X3, of(5, 3, 3)), "weight or bias is not constant"),
    "xnnpack ConvTranspose": (
        node("ConvTranspose", X4, zeros(3, 5, 3, 3)),
        node("ConvTranspose", X3, zeros(3, 5, 3)),
        "only 2D convolutions",
    ),
    "xnnpack Gemm": (node("Gemm", of(2, 3), zeros(3, 4)), node("Gemm", of(2, 3), of(3, 4)), "second input is not"),
    "xnnpack MatMul": (
        node("MatMul", of(2, 3), zeros(3, 4)),
        node("MatMul", of(2, 3), of(3, 4)),
        "second input is not",
    ),
    "xnnpack MatMul rank": (
        node("MatMul", of(2, 2, 3), zeros(3, 4)),
        node("MatMul", of(2, 2, 3), zeros(2, 3, 4)),
        "only matrices are taken",
    ),
    "xnnpack Softmax": (
        node("Softmax", of(2, 3), axis=1),
        node("Softmax", of(2, 3), axis=0),
        "not along the last axis",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_takes_what_keeps_it_and_refuses_what_does_not(case):
    taken, refused, words = CASES[case]
    target = targets.get(case.split()[0])
    assert not survey(taken, target).refusals
    (refusal,) = survey(refused, target).refusals
    assert words in refusal.reason


@pytest.mark.parametrize(
    ("name", "own", "unruled"),
    [("nnapi", rules.NNAPI, set()), ("coreml", rules.COREML, {"MatMul", "DepthToSpace", "Reciprocal", "Resize"})],
)
def test_every_condition_of_the_runtimes_own_table_has_a_rule_or_is_said_to_be_unchecked(name, own, unruled):
    target = targets.get(name)
    assert set(own) <= target.takes
    noted = {operator for operator in target.caveats if not operator.startswith("com.microsoft:")}
    assert noted == unruled


FAILURES = {
    ("ncnn", "`RNN` with relu"): recurrent("RNN", activations=["Relu"]),
    ("ncnn", "`GRU` that runs backward only"): recurrent("GRU", direction="reverse"),
    ("ncnn", "`GRU` whose last state is read"): recurrent("GRU"),
    ("ncnn", "`GatherElements`"): node("GatherElements", of(3, 4), of(3, 4, kind=I64)),
    ("ncnn", "`Range`, `ReduceMax`"): node("ReduceMax", of(3, 4)),
    ("mnn", "`RNN` with relu"): recurrent("RNN", activations=["Relu"]),
    ("mnn", "`GRU` that runs backward only"): recurrent("GRU", direction="reverse"),
    ("mnn", "recurrent node with `sequence_lens`"): recurrent("LSTM", lengths=True),
    ("litert", "`RNN` with an initial state"): recurrent("RNN", states=True, time=3),
}


@pytest.mark.parametrize(("name", "nodes"), FAILURES)
def test_a_known_failure_of_a_runtime_is_a_refusal(name, nodes):
    target = targets.get(name)
    known = next(failure for failure in target.fails if failure.nodes == nodes)
    assert known.happens in {refusal.reason for refusal in survey(FAILURES[name, nodes], target).refusals}


def test_what_differs_from_a_known_failure_is_taken():
    read = recurrent("GRU")
    del read.graph.output[1]
    assert not survey(read, targets.get("ncnn")).refusals
    assert not survey(recurrent("GRU", direction="bidirectional"), targets.get("mnn")).refusals
    assert all(
        failure.nodes and failure.happens
        for table in (failures.NCNN, failures.MNN, failures.LITERT)
        for failure in table
    )

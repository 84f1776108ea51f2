"""Bytes of matrices are signed, or unsigned where sums of signed products are clipped: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compressor.runtimes.session import open_session
from exporters.quantization import products
from exporters.quantization.matrices import find
from exporters.quantization.rewrite import rewrite
from exporters.quantization.weights import Weights
from tests.onnx_graphs.graphs import I, model, recurrent

ROWS = 9


def product(uses=1):
    generator = np.random.default_rng(3)
    weight = generator.normal(size=(I, I)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "W"], ["a"])] if uses == 1 else []
    if uses > 1:
        nodes = [helper.make_node("MatMul", ["x", "W"], ["b"]), helper.make_node("MatMul", ["b", "W"], ["a"])]
    return model(nodes, {"x": ["time", "batch", I]}, {"a": 3}, {"W": weight})


def tied():
    """A table whose rows are read, and multiplied."""
    table = np.random.default_rng(4).normal(size=(ROWS, I)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["W", "places"], ["rows"]),
        helper.make_node("Add", ["rows", "x"], ["moved"]),
        helper.make_node("Transpose", ["W"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["moved", "turned"], ["a"]),
    ]
    inputs = {"x": ["time", "batch", I], "places": (["time", "batch"], TensorProto.INT64)}
    return model(nodes, inputs, {"a": 3}, {"W": table})


GRAPHS = {
    "one product": product,
    "two products": lambda: product(uses=2),
    "tied": tied,
    "GRU": lambda: recurrent("GRU", linear_before_reset=1),
    "RNN, both directions": lambda: recurrent("RNN", direction="bidirectional"),
    "LSTM": lambda: recurrent("LSTM"),
    "LSTM, both directions": lambda: recurrent("LSTM", direction="bidirectional"),
}


def without_clipping(proto):
    """Every second weight of an output is 0, so that no two neighbouring products leave 16 bits on any processor."""
    for tensor in proto.graph.initializer:
        if tensor.name in ("W", "R"):
            array = numpy_helper.to_array(tensor).copy()
            array[..., 1::2] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def inputs(proto):
    generator = np.random.default_rng(5)
    given = {"x": generator.normal(size=(6, 3, I), scale=2.0).astype(np.float32)}
    if any(item.name == "places" for item in proto.graph.input):
        given["places"] = generator.integers(0, ROWS, (6, 3))
    return given


def rounded(monkeypatch, proto, form, *, moved, by_row=False):
    monkeypatch.setattr(products, "saturate", lambda: moved)
    matrices = find(proto, smallest=1)
    assert matrices
    return rewrite(proto, Weights(proto, matrices, 32), {matrix.name: form for matrix in matrices}, by_row=by_row)


@pytest.mark.parametrize("by_row", [False, True], ids=["one scale", "a scale for each row"])
@pytest.mark.parametrize("form", ["integer", "integer4"])
@pytest.mark.parametrize("name", GRAPHS)
def test_unsigned_bytes_give_what_signed_ones_give_without_clipping(name, form, by_row, monkeypatch):
    proto = GRAPHS[name]()
    has_reference = "both" not in name and (name != "LSTM" or by_row)  # it has no reversed Scan, no DynamicQuantizeLSTM
    if not has_reference:
        without_clipping(proto)
    signed, moved = (rounded(monkeypatch, proto, form, moved=own, by_row=by_row) for own in (False, True))
    given = inputs(proto)
    results = open_session(moved.SerializeToString()).run(None, given)
    if has_reference:
        wanted = ReferenceEvaluator(signed).run(None, given)
    else:
        wanted = open_session(signed.SerializeToString()).run(None, given)
    for result, other in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, other, rtol=1e-4, atol=1e-5)
    assert moved.ByteSize() <= signed.ByteSize() + 500  # further nodes and zero points, no second copy


def test_a_table_that_is_also_multiplied_is_there_once_either_way(monkeypatch):
    for moved in (False, True):
        proto = rounded(monkeypatch, tied(), "integer", moved=moved)
        kind = TensorProto.UINT8 if moved else TensorProto.INT8
        held = [tensor for tensor in proto.graph.initializer if tensor.data_type == kind and len(tensor.dims) == 2]
        assert len(held) == 1

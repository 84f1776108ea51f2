"""Weights in a file beside the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.runtimes.session import open_session
from exporters.passes import external_data


def a_graph():
    """A product with a matrix of more than 1,024 bytes, and a vector of fewer behind it."""
    matrix = np.arange(7 * 53, dtype=np.float32).reshape(7, 53)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 7])],
        [value("y", TensorProto.FLOAT, ["n", 53])],
        [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(matrix[0] / 8, "b")],
        doc_string="kept",
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="kept")
    helper.set_model_props(proto, {"key": "kept"})
    return proto


def test_a_draft_computes_the_same_with_its_large_weights_in_a_file(tmp_path):
    proto = a_graph()
    before = proto.SerializeToString(deterministic=True)
    light = external_data.draft(proto, tmp_path / "weights")
    assert proto.SerializeToString(deterministic=True) == before
    assert [tensor.data_location == TensorProto.EXTERNAL for tensor in light.graph.initializer] == [True, False]
    assert (tmp_path / "weights").stat().st_size == 7 * 53 * 4
    (tmp_path / "draft.onnx").write_bytes(light.SerializeToString())
    feed = {"x": np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)}
    (found,), (wanted,) = (open_session(model).run(None, feed) for model in (tmp_path / "draft.onnx", before))
    np.testing.assert_array_equal(found, wanted)


def test_a_draft_with_its_weights_put_back_is_the_graph_itself(tmp_path):
    proto = a_graph()
    light = external_data.draft(proto, tmp_path / "weights")
    onnx.external_data_helper.load_external_data_for_model(light, str(tmp_path))
    for tensor in light.graph.initializer:
        tensor.ClearField("data_location")
    assert light == proto


@pytest.mark.parametrize("number", [2, 3])
def test_every_weight_of_a_draft_begins_at_an_aligned_place(tmp_path, number):
    proto = a_graph()
    for index in range(number):
        proto.graph.initializer.append(numpy_helper.from_array(np.full((1, 301), index, np.float32), f"more{index}"))
    light = external_data.draft(proto, tmp_path / "weights")
    places = [
        int({entry.key: entry.value for entry in tensor.external_data}["offset"])
        for tensor in light.graph.initializer
        if tensor.external_data
    ]
    assert len(places) == 1 + number
    assert all(place % 64 == 0 for place in places)

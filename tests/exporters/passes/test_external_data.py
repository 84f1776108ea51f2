"""Weights in a file beside the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ExportError, OutputError
from compressor.runtimes.session import open_session
from exporters.passes import external_data, validity
from tests.onnx_graphs.graphs import model


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


def test_a_file_of_weights_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*weights"):
        external_data.draft(a_graph(), tmp_path / "gone" / "weights")


def test_the_graph_of_a_draft_is_whole_again(tmp_path):
    proto = a_graph()
    light = external_data.draft(proto, tmp_path / "weights")
    before = light.SerializeToString(deterministic=True)
    assert external_data.whole(light, tmp_path) == proto
    assert light.SerializeToString(deterministic=True) == before


def test_a_draft_of_a_draft_has_a_file_with_all_weights_and_needs_the_first_no_more(tmp_path):
    proto = a_graph()
    light = external_data.draft(proto, tmp_path / "weights")
    again = external_data.draft(light, tmp_path / "other", external_data.in_files(tmp_path))
    assert (tmp_path / "other").read_bytes() == (tmp_path / "weights").read_bytes()
    (tmp_path / "weights").unlink()
    assert external_data.whole(again, tmp_path) == proto


def test_values_of_a_draft_are_those_of_the_graph_and_shapes_need_no_file(tmp_path):
    proto = a_graph()
    light = external_data.draft(proto, tmp_path / "weights")
    values = external_data.Values(light.graph.initializer, tmp_path)
    assert {name: values.shape(name) for name in values} == {"w": (7, 53), "b": (53,)}
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(values[tensor.name], numpy_helper.to_array(tensor))
    (tmp_path / "weights").unlink()
    assert values.shape("w") == (7, 53)


def test_a_checker_gets_a_large_graph_without_its_weights_and_finds_what_is_wrong(monkeypatch):
    monkeypatch.setattr(external_data, "_HOLLOW_FROM_BYTES", 1024)
    proto = a_graph()
    validity.check(proto, 17)
    with external_data.hollow(proto) as (checked, path):
        assert checked.ByteSize() < 7 * 53 * 4 < path.with_name("weights").stat().st_size + 1
        assert not any(path.with_name("weights").read_bytes())
    proto.graph.node[0].op_type = "MatMult"
    with pytest.raises(ExportError, match="not valid ONNX"):
        validity.check(proto, 17)


@pytest.mark.parametrize("size", [3, 300, 70_000])
def test_a_file_that_is_written_weight_by_weight_is_byte_for_byte_that_of_the_whole_graph(tmp_path, size):
    weights = {name: np.random.default_rng(0).normal(size=(2, size)).astype(np.float32) for name in ("a", "b")}
    nodes = [helper.make_node("Add", ["x", "a"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    proto = model(nodes, {"x": ["n", size]}, {"y": 2}, weights)
    proto.graph.doc_string, proto.producer_name = "behind the weights", "in front of the graph"
    proto.metadata_props.add(key="behind", value="the graph")
    light = external_data.draft(proto, tmp_path / "weights")
    written = external_data.one_file(light, tmp_path)
    written.write(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == proto.SerializeToString(deterministic=True)
    assert written.bytes == proto.ByteSize()


def test_a_draft_is_checked_beside_files_of_zeros(tmp_path):
    light = external_data.draft(a_graph(), tmp_path / "weights")
    with external_data.hollow(light) as (checked, path):
        assert checked == light
        assert set(path.with_name("weights").read_bytes()) == {0}
        onnx.checker.check_model(str(path), full_check=True)

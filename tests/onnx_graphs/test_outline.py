"""A graph that is read without the numbers of its large weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import helper

from compressor.onnx_graphs.outline import LEAST_BYTES, as_written, outline
from tests.onnx_graphs.graphs import model

COUNT = LEAST_BYTES // 4


@pytest.fixture
def proto():
    """Weights of the smallest size that is left out, and one fewer; fields in front of the graph and behind it."""
    weights = {name: np.arange(size, dtype=np.float32) for name, size in (("a", COUNT), ("b", COUNT - 1), ("c", 3))}
    nodes = [helper.make_node("Concat", ["x", *weights], ["y"], axis=0)]
    proto = model(nodes, {"x": ["n"]}, {"y": 1}, weights)
    proto.graph.doc_string, proto.producer_name = "behind the weights", "in front of the graph"
    proto.metadata_props.add(key="behind", value="the graph")
    return proto


def test_all_but_the_numbers_of_large_weights_is_there(proto, tmp_path):
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    found = outline(tmp_path / "model.onnx")
    assert found.ByteSize() < proto.ByteSize() - LEAST_BYTES
    proto.graph.initializer[0].ClearField("raw_data")
    assert found == proto


def test_a_field_that_comes_twice_and_fields_that_nobody_knows_are_read_as_ever(proto, tmp_path):
    unknown = b"".join(
        as_written(999 << 3 | kind) + rest for kind, rest in ((0, b"\x85\x01"), (1, b"8" * 8), (5, b"4444"))
    )
    again = onnx.ModelProto(graph=onnx.GraphProto(name="later"))
    content = proto.SerializeToString() + unknown + again.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    wanted = onnx.ModelProto.FromString(content)
    wanted.graph.initializer[0].ClearField("raw_data")
    assert outline(tmp_path / "model.onnx") == wanted


@pytest.mark.parametrize("cut", [1, 100, LEAST_BYTES + 500, 2 * LEAST_BYTES])
def test_what_is_cut_off_is_no_row_of_fields(proto, tmp_path, cut):
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString()[:-cut])
    assert outline(tmp_path / "model.onnx") is None


@pytest.mark.parametrize("content", [b"", b"\x80" * 11, b"\x0b\x0c"], ids=["empty", "no end of a number", "a group"])
def test_what_holds_no_fields_is_left_to_a_whole_reader(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert outline(tmp_path / "model.onnx") is None


def test_fields_of_another_message_are_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x42\x01\x08")  # an opset that ends inside of its version
    with pytest.raises(DecodeError):
        outline(tmp_path / "model.onnx")


@pytest.mark.parametrize("value", [0, 127, 128, 300, 2**31, 2**63])
def test_numbers_are_written_as_protobuf_writes_them(value):
    tensor = onnx.TensorProto(uint64_data=[value])
    assert tensor.SerializeToString().endswith(as_written(value))

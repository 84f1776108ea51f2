"""Integers of few bits as bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.runtimes.session import open_session
from exporters.quantization.packing import PLANES, Layout, Lists, pack, packed_bytes
from tests.onnx_graphs.graphs import model


@pytest.mark.parametrize("columns", [1, 7, 8, 37, 64])
@pytest.mark.parametrize("bits", PLANES)
def test_every_integer_is_the_same_after_packing_and_unpacking(bits, columns):
    half = 1 << (bits - 1)
    values = np.random.default_rng(bits).integers(-half, half, (5, columns)).astype(np.int8)
    planes = pack(values, bits)
    assert sum(array.nbytes for array in planes.values()) == packed_bytes(5, columns, bits) >= 5 * columns * bits / 8
    np.testing.assert_array_equal(_run(planes, columns, bits), values)


def test_full_bytes_are_wasted_nowhere():
    assert [packed_bytes(3, 64, bits) for bits in PLANES] == [3 * 64 * bits // 8 for bits in PLANES]


@pytest.mark.parametrize("columns", [16, 37, 64])
@pytest.mark.parametrize("bits", PLANES)
def test_rows_that_are_looked_up_are_those_of_the_matrix(bits, columns):
    half = 1 << (bits - 1)
    values = np.random.default_rng(bits).integers(-half, half, (5, columns)).astype(np.int8)
    places = np.array([[4, 0, 4], [1, 2, 2]])
    found = _run(pack(values, bits), columns, bits, places)
    np.testing.assert_array_equal(found, values[places])


def _run(planes, columns, bits, places=None):
    """What ONNX Runtime makes of the bytes, of all rows or of those at some places."""
    count = len(next(iter(planes.values())))
    inputs = {"x": [count if places is None else "some", columns], "places": (["a", "b"], TensorProto.INT64)}
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if places is not None:
        nodes = [helper.make_node("Gather", ["x", "places"], ["y"])]
    graph = ir.from_proto(model(nodes, inputs, {"y": 2 if places is None else 3}))
    node, layout = graph.graph.node(0), Layout(columns, 16, bits)
    do = Builder(Names.of(graph.graph))
    lead = count if places is None else graph.graph.inputs[1]
    stored = {plane: do.constant(array) for plane, array in layout.shaped(planes).items()}
    if places is not None:
        stored = {plane: do("Gather", [array, lead]) for plane, array in stored.items()}
    lists = Lists(do, lambda number: do.constant(np.array(number, np.float32)), [bits])
    values = layout.unpack(do, lists, stored, lead)
    values = layout.flat(do, values, lead) if layout.fits else values
    added = values if places is not None else do("Add", [node.inputs[0], values])
    replace(node, do, [added])
    feed = {"x": np.zeros((count, columns), np.float32), "places": np.zeros((1, 1), np.int64)}
    feed |= {} if places is None else {"places": places}
    return open_session(ir.to_proto(graph).SerializeToString()).run(None, feed)[0]

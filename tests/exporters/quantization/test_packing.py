"""Integers of few bits as bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.runtimes.session import open_session
from exporters.quantization.packing import PLANES, pack, packed_bytes, unpack
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


def _run(planes, columns, bits):
    """What ONNX Runtime makes of the bytes."""
    graph = ir.from_proto(model([helper.make_node("Identity", ["x"], ["y"])], {"x": [5, columns]}, {"y": 2}))
    node = graph.graph.node(0)
    do = Builder(Names.of(graph.graph))
    stored = {plane: do.constant(array) for plane, array in planes.items()}
    values = unpack(do, stored, columns, bits, lambda number: do.constant(np.array(number, np.float32)))
    replace(node, do, [do("Add", [node.inputs[0], values])])
    session = open_session(ir.to_proto(graph).SerializeToString())
    return session.run(None, {"x": np.zeros((5, columns), np.float32)})[0]

"""What a form makes of the values of a matrix."""

from __future__ import annotations

import numpy as np
from onnx import helper

from exporters.quantization.forms import ladder
from exporters.quantization.matrices import find
from exporters.quantization.weights import Weights
from tests.onnx_graphs.graphs import model


def test_a_table_is_never_in_4_bits():
    table = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    gather = helper.make_node("Gather", ["table", "places"], ["rows"])
    product = helper.make_node("MatMul", ["rows", "matrix"], ["y"])
    weights = {"table": table, "places": np.arange(3), "matrix": table.T.copy()}
    proto = model([gather, product], {"unused": [1]}, {"y": 2}, weights)
    found = Weights(proto, find(proto), 32)
    assert not found.matrices["table"].is_product
    assert "int4" not in ladder(found.matrices["table"], "int4", "cpu")
    assert np.abs(found.restored("matrix", "int4") - table.T).max() > np.abs(table).max() / 30


def test_what_was_forgotten_is_rounded_again_to_the_same():
    matrix = np.random.default_rng(0).normal(size=(37, 53)).astype(np.float32)
    proto = model([helper.make_node("MatMul", ["x", "matrix"], ["y"])], {"x": [1, 37]}, {"y": 2}, {"matrix": matrix})
    weights = Weights(proto, find(proto), 32)
    before, rows = weights.restored("matrix", "weights4"), weights.rows("matrix", 4)
    assert weights.rows("matrix", 4) is rows
    weights.forget("matrix")
    assert weights.rows("matrix", 4) is not rows
    np.testing.assert_array_equal(weights.restored("matrix", "weights4"), before)

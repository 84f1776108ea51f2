"""Which weights of a graph could be stored in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from exporters.quantization.matrices import find
from tests.onnx_graphs.graphs import model


def products(rows, columns, *more):
    """A product with a weight of this size, and further nodes that may read it."""
    weight = np.ones((rows, columns), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"]), *more]
    return model(nodes, {"x": ["batch", rows]}, {"y": 2}, {"W": weight})


def test_a_weight_of_exactly_the_smallest_number_is_taken_and_one_of_fewer_is_refused_with_its_number():
    assert [matrix.refused for matrix in find(products(16, 16))] == [""]
    assert [matrix.refused for matrix in find(products(15, 17))] == [
        "255 numbers: scales and nodes would cost what is saved"
    ]


def test_bytes_are_those_of_float32():
    assert find(products(15, 17))[0].bytes == 4 * 15 * 17


@pytest.mark.parametrize(
    ("nodes", "product"),
    [
        ([], True),
        ([helper.make_node("MatMul", ["x", "W"], ["z"])], True),
        ([helper.make_node("Gemm", ["x", "W"], ["z"])], True),
        ([helper.make_node("Gemm", ["x", "W"], ["z"], transB=1)], False),
        ([helper.make_node("Gemm", ["x", "W"], ["z"], alpha=2.0)], False),
        ([helper.make_node("Relu", ["W"], ["z"])], False),
    ],
    ids=["alone", "twice", "as Gemm", "transposed", "scaled", "by a function too"],
)
def test_integers_can_be_only_if_every_use_is_the_same_product(nodes, product):
    assert find(products(16, 16, *nodes))[0].is_product is product


def test_the_first_pattern_that_keeps_a_matrix_is_named():
    assert find(products(16, 16), ["rnn.*", "W"])[0].refused == "`keep_float: W`"


def test_a_table_that_is_an_output_stays_as_it_is():
    proto = products(16, 16)
    proto.graph.output.append(helper.make_tensor_value_info("W", 1, [16, 16]))
    assert find(proto)[0].refused == "it is an output of the graph"

"""Products of each operator from its shapes, against the formula written out; and products in the bodies of a Scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from compressor.measure import macs
from compressor.measure.mac_counters import NodeShapes, UncountableError, counter, is_free_of_products

F = 5


def products(operator, shapes, output, domain="", **attributes):
    """What a node of these shapes of inputs (None: left out) and of its output counts."""
    names = ["" if shape is None else f"i{index}" for index, shape in enumerate(shapes)]
    node = helper.make_node(operator, names, ["y"], domain=domain, **attributes)
    known = {name: shape for name, shape in zip(names, shapes, strict=True) if name} | {"y": output}
    return counter(node)(NodeShapes(node, known))


LSTM = ((7, 3, 5), (2, 44, 5), (2, 44, 11))
HEADS = ((2, 3, 5, 11), (2, 3, 7, 11), (2, 3, 7, 13))
JOINED = ((2, 5, 33), (2, 7, 33), (2, 7, 39))


@pytest.mark.parametrize(
    ("operator", "shapes", "output", "attributes", "wanted"),
    [
        ("MatMul", ((2, 3, 5), (5, 7)), (2, 3, 7), {}, 2 * 3 * 5 * 7),
        ("MatMulInteger", ((3, 5), (5, 7)), (3, 7), {}, 3 * 5 * 7),
        ("QLinearMatMul", ((3, 5), (), (), (5, 7)), (3, 7), {}, 3 * 5 * 7),
        ("MatMulNBits", ((2, 3, 64), (7, 2, 16), (14,)), (2, 3, 7), {"domain": "com.microsoft"}, 2 * 3 * 64 * 7),
        ("Gemm", ((3, 5), (5, 7), (7,)), (3, 7), {}, 3 * 5 * 7),
        ("Gemm", ((5, 3), (5, 7)), (3, 7), {"transA": 1}, 3 * 5 * 7),
        ("Gemm", ((3, 5), (7, 5)), (3, 7), {"transA": 0, "transB": 1}, 3 * 5 * 7),
        ("Conv", ((2, 6, 17), (10, 3, 4)), (2, 10, 14), {"group": 2}, 2 * 10 * 14 * 3 * 4),
        ("ConvInteger", ((2, 6, 9, 9), (10, 6, 3, 2)), (2, 10, 7, 8), {}, 2 * 10 * 7 * 8 * 6 * 3 * 2),
        ("QLinearConv", ((2, 6, 9), (), (), (10, 6, 3)), (2, 10, 7), {}, 2 * 10 * 7 * 6 * 3),
        ("ConvTranspose", ((2, 6, 9), (6, 5, 3)), (2, 5, 11), {}, 2 * 6 * 9 * 5 * 3),
        ("LSTM", LSTM, (7, 2, 3, 11), {}, 7 * 3 * 2 * 4 * 11 * (5 + 11)),
        ("GRU", ((7, 3, 5), (1, 33, 5), (1, 33, 11)), (7, 1, 3, 11), {}, 7 * 3 * 3 * 11 * (5 + 11)),
        ("RNN", ((7, 3, 5), (1, 11, 5), (1, 11, 11)), (7, 1, 3, 11), {}, 7 * 3 * 11 * (5 + 11)),
        (
            "DynamicQuantizeLSTM", ((7, 3, 5), (2, 5, 44), (2, 11, 44)), (7, 2, 3, 11), {"domain": "com.microsoft"},
            7 * 3 * 2 * 44 * (5 + 11),
        ),
        ("Einsum", ((2, 3, 5), (2, 5, 7)), (2, 3, 7), {"equation": "bik, bkj -> bij"}, 2 * 3 * 5 * 7),
        ("Einsum", ((3,), (4,)), (3, 4), {"equation": "i,j"}, 12),
        ("Attention", HEADS, (2, 3, 5, 13), {}, 2 * 3 * 5 * 7 * (11 + 13)),
        ("Attention", JOINED, (2, 5, 39), {"q_num_heads": 3, "kv_num_heads": 3}, 2 * 3 * 5 * 7 * (11 + 13)),
        (
            "Attention", ((2, 5, 66), (2, 7, 33), (2, 7, 39)), (2, 5, 78), {"q_num_heads": 6, "kv_num_heads": 3},
            2 * 6 * 5 * 7 * (11 + 13),
        ),
        (
            "Attention", (*HEADS, None, (2, 3, 4, 11), (2, 3, 4, 13)), (2, 3, 5, 13), {},
            2 * 3 * 5 * (7 + 4) * (11 + 13),
        ),
    ],
)  # fmt: skip
def test_a_node_counts_as_many_products_as_its_formula_says(operator, shapes, output, attributes, wanted):
    assert products(operator, shapes, output, **attributes) == wanted


@pytest.mark.parametrize(
    ("operator", "shapes", "output", "attributes"),
    [
        ("MatMul", ((3, 5), (5, 7)), None, {}),
        ("MatMul", (None, (5, 7)), (3, 7), {}),
        ("Gemm", ((3, 5), (5, 7)), None, {}),
        ("Conv", ((2, 6, 17), (10, 3, 4)), None, {}),
        ("Conv", ((2, 6, 17),), (2, 10, 14), {}),
        ("LSTM", ((7, 3, 5), (1, 44, 5), (1, 44, 7)), (7, 1, 3, 7), {}),  # projected
        ("LSTM", LSTM[:2], (7, 2, 3, 11), {}),
        ("Einsum", ((3, 4),), (4, 3), {"equation": "ij->ji"}),
        ("Einsum", ((2,), (2,), (2,)), (2,), {"equation": "i,i,i->i"}),
        ("Einsum", ((2, 3), (3, 4)), (2, 4), {"equation": "...k,kj->...j"}),
        ("Attention", JOINED, (2, 5, 39), {}),
    ],
)
def test_a_form_whose_count_is_not_known_is_told(operator, shapes, output, attributes):
    with pytest.raises(UncountableError):
        products(operator, shapes, output, **attributes)


@pytest.mark.parametrize(
    ("operator", "domain", "counted"),
    [
        ("MatMul", "", True), ("MatMul", "ai.onnx", True), ("MatMul", "com.microsoft", False),
        ("MatMulNBits", "com.microsoft", True), ("MatMulNBits", "", False), ("Add", "", False),
    ],
)  # fmt: skip
def test_operators_are_known_by_their_domain(operator, domain, counted):
    node = helper.make_node(operator, ["a", "b"], ["y"], domain=domain)
    assert (counter(node) is not None) == counted
    assert is_free_of_products(node) == (operator == "Add")


def scan(weight, *, axes=None, initializers=(), count=1, batch=1):
    """state @ weight + step, for each step of x."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", weight], ["product"]),
            helper.make_node("Add", ["product", "step"], ["next"]),
            helper.make_node("Identity", ["next"], ["out"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, F]) for name in ("state", "step")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, F]) for name in ("next", "out")],
        list(initializers),
    )
    more = {} if axes is None else {"scan_input_axes": axes}
    return [
        helper.make_node("Scan", ["initial", "x"], [f"last{index}", f"y{index}"], body=body, num_scan_inputs=1, **more)
        for index in range(count)
    ]


WEIGHT = np.ones((F, F), np.float32)
STEPS = 11


def surveyed(write, nodes, weights, *, inputs=None, axis=0, batch=1):
    shape = [batch, F]
    shape.insert(axis, STEPS)
    named = ["time" if size == STEPS else size for size in shape]
    further = inputs or {}
    weights = {"initial": np.zeros((batch, F), np.float32), **weights}
    path = write(nodes, {"x": named, **further}, {"last0": [batch, F]}, weights)
    return macs.survey(path, [torch.ones(shape), *(torch.ones(given) for given in further.values())])


@pytest.mark.parametrize("count", [1, 2])
def test_products_of_a_scan_are_those_of_a_step_times_the_steps(write, count):
    before = helper.make_node("MatMul", ["weight", "weight"], ["unused"])
    found = surveyed(write, [before, *scan("weight", count=count)], {"weight": WEIGHT})
    assert found.by_operator == {"MatMul": F**3 + count * STEPS * F * F}
    assert found.by_node == {0: F**3, **dict.fromkeys(range(1, count + 1), STEPS * F * F)}
    assert (found.total, found.uncounted) == (sum(found.by_node.values()), ())


def test_a_scan_over_a_batch_counts_each_sample(write):
    assert surveyed(write, scan("weight", batch=3), {"weight": WEIGHT}, batch=3).total == STEPS * 3 * F * F


def test_a_scan_may_read_what_is_computed_of_weights_outside_of_it(write):
    turned = [
        helper.make_node("Identity", ["weight"], ["same"]),
        helper.make_node("Add", ["same", "shift"], ["shifted"]),
        helper.make_node("Relu", ["x"], ["of the input"]),
    ]
    weights = {"weight": WEIGHT, "shift": np.float32(1.0)}
    assert surveyed(write, [*turned, *scan("shifted")], weights).total == STEPS * F * F


def test_a_scan_may_hold_its_weights_itself(write):
    held = helper.make_tensor("own", TensorProto.FLOAT, [F, F], WEIGHT.ravel())
    assert surveyed(write, scan("own", initializers=[held]), {}).total == STEPS * F * F


def test_a_scan_that_reads_what_depends_on_an_input_or_runs_along_another_axis_is_not_counted(write):
    other = [helper.make_node("Relu", ["given"], ["positive"]), *scan("positive")]
    found = surveyed(write, other, {}, inputs={"given": [F, F]})
    assert (found.uncounted, found.total) == (("Scan",), None)
    body_of_rows = scan("weight", axes=[1])
    found = surveyed(write, body_of_rows, {"weight": WEIGHT}, axis=1)
    assert (found.uncounted, found.by_operator) == (("Scan",), {})
    assert surveyed(write, scan("weight", axes=[0]), {"weight": WEIGHT}).total == STEPS * F * F


@pytest.mark.parametrize(
    ("operator", "shape", "named"),
    [("Det", (3, 3), ("Det",)), ("Softmax", (9,), ()), ("Softmax", (3, 3), ("Softmax",)), ("Sum", (3, 3), ())],
)
def test_an_operator_that_takes_a_matrix_and_is_not_known_is_named(write, operator, shape, named):
    nodes = [helper.make_node(operator, ["w"], ["made"]), helper.make_node("Add", ["x", "made"], ["y"])]
    path = write(nodes, {"x": list(shape)}, {"y": None}, {"w": np.ones(shape, np.float32)})
    assert macs.survey(path, [torch.ones(shape)]).uncounted == named

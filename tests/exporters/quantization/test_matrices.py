"""Which weights of a graph could be stored in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from exporters.quantization.matrices import SCAN_UNITS, Matrix, Use, find, is_plain, partners
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


def node(operator, inputs=("x", "W"), **attributes):
    return helper.make_node(operator, list(inputs), ["y"], **attributes)


RECURRENT = ("x", "W", "R", "B", "", "h0")


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (node("MatMul"), True),
        (node("Conv", group=2), True),
        (node("Gemm"), True),
        (node("Gemm", alpha=1.0, beta=1.0, transA=0, transB=1), True),
        (node("Gemm", alpha=0.5), False),
        (node("Gemm", beta=0.5), False),
        (node("Gemm", transA=1), False),
        (node("Gather"), True),
        (node("Gather", axis=0), True),
        (node("Gather", axis=1), False),
        (node("LSTM", RECURRENT, hidden_size=4, direction="reverse", layout=0), True),
        (node("LSTM", RECURRENT, hidden_size=4, layout=1), False),
        (node("LSTM", RECURRENT, hidden_size=4, activations=["Sigmoid", "Tanh", "Relu"]), False),
        (node("LSTM", RECURRENT, hidden_size=4, clip=3.0), False),
        (node("LSTM", RECURRENT, hidden_size=4, input_forget=1), False),
        (node("LSTM", (*RECURRENT, "c0"), hidden_size=4), True),
        (node("LSTM", (*RECURRENT, "c0", "P"), hidden_size=4), False),
        (node("GRU", RECURRENT, hidden_size=4, linear_before_reset=1), True),
        (node("GRU", RECURRENT, hidden_size=4, linear_before_reset=0), False),
        (node("GRU", RECURRENT, hidden_size=4), False),
        (node("RNN", RECURRENT, hidden_size=4, activations=["Relu"]), True),
        (node("RNN", RECURRENT, hidden_size=4), True),
        (node("RNN", RECURRENT, hidden_size=4, clip=3.0), False),
    ],
)
def test_an_operator_is_plain_if_all_its_attributes_are_those_that_our_forms_assume(given, plain):
    assert is_plain(given) is plain


def unchecked(nodes, weights):
    """A graph of which only the nodes and the weights are looked at."""
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], kept))


def used(given, place, shape):
    """How a weight is used that is this input of a node."""
    inputs = [name if index != place else "weight" for index, name in enumerate(given.input)]
    other = helper.make_node(given.op_type, inputs, ["y"], domain=given.domain)
    other.attribute.extend(given.attribute)
    (found,) = find(unchecked([other], {"weight": np.ones(shape, np.float32)}), smallest=1)
    return found


@pytest.mark.parametrize(
    ("given", "place", "shape", "channels"),
    [
        (node("MatMul"), 1, (16, 17), (1,)),
        (node("MatMul"), 1, (2, 16, 17), None),
        (node("MatMul"), 0, (16, 17), None),
        (node("Gemm"), 1, (16, 17), (1,)),
        (node("Gemm", transB=1), 1, (16, 17), (0,)),
        (node("Gemm", transA=1), 1, (16, 17), (1,)),
        (node("Gemm", ("x", "W", "C")), 2, (16, 17), None),
        (node("Gemm"), 0, (16, 17), None),
        (node("Gather"), 0, (16, 17), (0,)),
        (node("Conv"), 1, (16, 17, 3), (0,)),
        (node("Conv"), 0, (16, 17, 3), None),
        (node("LSTM", RECURRENT, hidden_size=4), 1, (1, 16, 17), (0, 1)),
        (node("LSTM", RECURRENT, hidden_size=4), 2, (1, 16, 4), (0, 1)),
        (node("GRU", RECURRENT, hidden_size=4), 0, (3, 16, 17), None),
        (node("LSTM", RECURRENT, hidden_size=4), 5, (1, 3, 16), None),
        (node("Mul"), 1, (16, 17), None),
        (node("MatMul", domain="com.other"), 1, (16, 17), None),
    ],
)
def test_scales_lie_along_the_outputs_of_an_operator_and_other_uses_are_named(given, place, shape, channels):
    found = used(given, place, shape)
    assert found.channels == (channels or ())
    assert found.uses[0].channels == channels
    assert found.uses[0].plain == (channels is not None and is_plain(given))
    reason = f"it is used by `{given.op_type}`, which have no form in fewer bits"
    assert found.refused == ("" if channels is not None else reason)
    assert (found.shape, found.bytes) == (shape, 4 * int(np.prod(shape)))


def test_only_matrices_of_float32_are_listed_and_no_biases_of_recurrent_nodes():
    recurrent = helper.make_node("LSTM", ["x", "W", "R", "B"], ["h"], hidden_size=4)
    further = [
        helper.make_node("Cast", [name], [f"{name}_"], to=1) for name in ("vector", "integers", "halves", "unlisted")
    ]
    weights = {
        "R": np.ones((1, 16, 4), np.float32), "W": np.ones((1, 16, 5), np.float32), "B": np.ones((1, 32), np.float32),
        "vector": np.ones(400, np.float32), "integers": np.ones((20, 20), np.int64),
        "halves": np.ones((20, 20), np.float16), "unlisted": np.ones((20, 20), np.float32),
    }  # fmt: skip
    found = find(unchecked([recurrent, *further], weights), smallest=65)
    assert [(matrix.name, bool(matrix.refused)) for matrix in found] == [("W", False), ("R", True), ("unlisted", True)]
    assert "64 numbers" in found[1].refused
    assert partners(found) == {"W": "R"}
    assert [matrix.is_recurrent for matrix in found] == [True, True, False]


def test_matrices_of_several_recurrent_nodes_are_partners_by_node():
    nodes = [
        helper.make_node("GRU", ["x", f"W{index}", f"R{index}"], [f"h{index}"], hidden_size=4, linear_before_reset=1)
        for index in range(3)
    ]
    weights = {f"{kind}{index}": np.ones((1, 12, 4), np.float32) for kind in "WR" for index in range(3)}
    nodes[2].input[2] = "computed"  # its partner is no weight
    nodes.insert(0, helper.make_node("Identity", ["x2"], ["computed"]))
    del weights["R2"]
    assert partners(find(unchecked(nodes, weights))) == {"W0": "R0", "W1": "R1"}


@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("more", [-1, 0])
def test_a_recurrent_layer_below_the_units_at_which_a_scan_pays_is_slower_as_integers(operator, gates, more):
    units = SCAN_UNITS.get(operator, 1) + more
    uses = (Use(operator, 1, "y", plain=True, channels=(0, 1)),)
    found = Matrix("W", (1, gates * units, 5), uses, (0, 1))
    slower = more < 0 and operator in SCAN_UNITS
    assert bool(found.slower_as_integers) == slower
    assert not slower or f"a {operator} of {units} units" in found.slower_as_integers
    assert (found.is_recurrent, found.is_table, found.is_product) == (True, False, True)


def test_a_matrix_without_a_shape_stands_for_activations_and_has_no_bytes():
    assert Matrix("relu", (), (), (), activations=400).bytes == 0
    assert Matrix("table", (2, 3), (Use("Gather", 0, "y", plain=True, channels=(0,)),), (0,)).is_table

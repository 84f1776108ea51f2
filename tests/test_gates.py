"""The table of gates against PyTorch's modules and the definitions of the ONNX operators."""

import onnx
import pytest
from torch import nn

from compressor.gates import BY_MODE, BY_OPERATOR, LSTM


@pytest.mark.parametrize(
    "module", [nn.RNN(3, 5), nn.RNN(3, 5, nonlinearity="relu"), nn.GRU(3, 5), nn.LSTM(3, 5)], ids=lambda m: m.mode
)
def test_a_weight_has_one_block_of_rows_for_each_gate(module):
    assert module.weight_ih_l0.shape == (BY_MODE[module.mode].count * 5, 3)


@pytest.mark.parametrize(
    ("operator", "to_onnx", "from_onnx"),
    [("RNN", (0,), (0,)), ("GRU", (1, 0, 2), (1, 0, 2)), ("LSTM", (0, 3, 1, 2), (0, 2, 3, 1))],
)
def test_orders_between_pytorch_and_onnx(operator, to_onnx, from_onnx):
    gates = BY_OPERATOR[operator]
    assert gates.to_onnx == to_onnx
    assert gates.from_onnx == from_onnx
    assert [gates.to_onnx[place] for place in gates.from_onnx] == list(range(gates.count))


@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_states_are_those_of_the_onnx_operator(operator):
    inputs = {item.name for item in onnx.defs.get_schema(operator).inputs}
    assert {f"initial_{state}" for state in BY_OPERATOR[operator].states} == inputs & {"initial_h", "initial_c"}


def test_products_are_kept_apart_where_another_gate_or_a_norm_comes_between():
    scaled = {mode: [gate.name for gate in gates.gates if gate.state_scaled] for mode, gates in BY_MODE.items()}
    known = {
        "RNN_TANH": [],
        "RNN_RELU": [],
        "GRU": ["new"],
        "LSTM": [],
        "LAYER_NORM_LSTM": [gate.name for gate in LSTM.gates],
    }
    assert known.items() <= scaled.items()

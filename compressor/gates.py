"""The gates of recurrent cells: one table for PyTorch and ONNX, which keep them in different orders.

Neither library is imported here, so that every room can read the table. A weight of a cell with G gates and H units has
G blocks of H rows, one for each gate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["RNN_TANH", "RNN_RELU", "GRU", "LSTM", "LAYER_NORM_LSTM"]
"""The name of a cell, as `torch.nn.RNNBase.mode`."""


@dataclass(frozen=True)
class Gate:
    """One gate of a cell: an activation of W x + b_ih + U h + b_hh."""

    name: str
    activation: str
    """`Sigmoid`, `Tanh` or `Relu`, as ONNX names its operators."""
    state_scaled: bool = False
    """Another gate, or a norm, scales U h + b_hh before it is added: the two products and biases cannot be merged."""


@dataclass(frozen=True)
class CellGates:
    """What PyTorch and ONNX have to agree on for one type of recurrent cell."""

    mode: Mode
    label: str
    """As tables and messages call it."""
    gates: tuple[Gate, ...]
    """In PyTorch's order."""
    states: tuple[str, ...]
    """What is carried from step to step: `h`, and `c` of an LSTM."""
    operator: str
    """ONNX operator; empty if there is none, and the cell is exported as the loop that it is."""
    onnx_gates: tuple[str, ...]
    """Names of the gates in the order of the ONNX operator."""
    activations: tuple[str, ...]
    """The ONNX operator's attribute `activations` for one direction."""

    @property
    def count(self) -> int:
        """G, the number of gates."""
        return len(self.gates)

    @property
    def to_onnx(self) -> tuple[int, ...]:
        """For each gate of the ONNX operator, its place in PyTorch: the order that turns PyTorch's blocks into ONNX's.

        GRU: r, z, n -> z, r, n is (1, 0, 2). LSTM: i, f, g, o -> i, o, f, g is (0, 3, 1, 2).
        """
        places = {gate.name: place for place, gate in enumerate(self.gates)}
        return tuple(places[name] for name in self.onnx_gates)

    @property
    def from_onnx(self) -> tuple[int, ...]:
        """For each gate of PyTorch, its place in the ONNX operator: the inverse of `to_onnx`."""
        return tuple(self.onnx_gates.index(gate.name) for gate in self.gates)


def _rnn(mode: Mode, label: str, activation: str) -> CellGates:
    return CellGates(
        mode=mode,
        label=label,
        gates=(Gate("new", activation),),
        states=("h",),
        operator="RNN",
        onnx_gates=("new",),
        activations=(activation,),
    )


RNN_TANH = _rnn("RNN_TANH", "tanh RNN", "Tanh")
RNN_RELU = _rnn("RNN_RELU", "ReLU RNN", "Relu")
GRU = CellGates(
    mode="GRU",
    label="GRU",
    gates=(Gate("reset", "Sigmoid"), Gate("update", "Sigmoid"), Gate("new", "Tanh", state_scaled=True)),
    states=("h",),
    operator="GRU",
    onnx_gates=("update", "reset", "new"),
    activations=("Sigmoid", "Tanh"),
)
LSTM = CellGates(
    mode="LSTM",
    label="LSTM",
    gates=(Gate("input", "Sigmoid"), Gate("forget", "Sigmoid"), Gate("cell", "Tanh"), Gate("output", "Sigmoid")),
    states=("h", "c"),
    operator="LSTM",
    onnx_gates=("input", "output", "forget", "cell"),
    activations=("Sigmoid", "Tanh", "Tanh"),
)
LAYER_NORM_LSTM = CellGates(
    mode="LAYER_NORM_LSTM",
    label="LayerNorm LSTM",
    gates=tuple(replace(gate, state_scaled=True) for gate in LSTM.gates),
    states=LSTM.states,
    operator="",
    onnx_gates=(),
    activations=(),
)

BY_MODE: dict[str, CellGates] = {cell.mode: cell for cell in (RNN_TANH, RNN_RELU, GRU, LSTM, LAYER_NORM_LSTM)}
BY_OPERATOR = {cell.operator: cell for cell in (RNN_TANH, GRU, LSTM)}
"""ONNX operator -> its gates; of `RNN`, those with the default activation."""

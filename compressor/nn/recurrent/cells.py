"""The recurrent cells: all that tells one type of cell from another, and their equations for PyTorch.

A **cell** is one layer in one direction at one step, with G gates, H units, I inputs and S outputs (S is H, or P in an
LSTM with `proj_size` P). Surgery, refits, streaming, unrolling and exports ask a `Cell` for its gates, parameters,
states and equations; a new type of cell is a class here, and its gates in `compressor.gates`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.gates import GRU, LAYER_NORM_LSTM, LSTM, RNN_RELU, RNN_TANH, CellGates
from compressor.nn.recurrent.layer_norm import LayerNormLSTM, LayerNormLSTMCell, layer_norm_lstm_step

Axis = Literal["gates", "units", "outputs", "inputs"]
"""What the positions along an axis of a parameter are: G blocks of H rows, the H units, S outputs, or I inputs."""
Weights = Mapping[str, Tensor]
"""The parameters of one layer in one direction by their names in `Cell.parameters`, those that it has."""

RecurrentLayer = nn.RNNBase
"""What every module for whole sequences is for type checkers."""
StepModule = nn.RNNCellBase
"""The same of the modules for one step."""

aten = torch.ops.aten


@dataclass(frozen=True)
class Parameter:
    """One parameter of a cell; a unit leaves it along every axis that holds units, in each gate block of `gates`."""

    name: str
    axes: tuple[Axis, ...]


WEIGHT_IH = Parameter("weight_ih", ("gates", "inputs"))
WEIGHT_HH = Parameter("weight_hh", ("gates", "outputs"))
BIAS_IH = Parameter("bias_ih", ("gates",))
BIAS_HH = Parameter("bias_hh", ("gates",))
WEIGHT_HR = Parameter("weight_hr", ("outputs", "units"))


class Cell(ABC):
    """A type of recurrent cell."""

    gates: CellGates
    parameters: tuple[Parameter, ...] = (WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH)
    """In PyTorch's order; a layer may lack biases and projection."""
    layer_type: type[RecurrentLayer]
    """PyTorch's module for whole sequences."""
    step_type: type[StepModule]
    """PyTorch's module for one step."""
    options: Mapping[str, Any] = {}
    """Arguments of both modules that select this cell; attributes of the same name hold them."""
    kernel: Callable[..., tuple[Tensor, ...]]
    """PyTorch's function for whole sequences, if it has one."""
    sequence_operators: tuple[Any, ...] = ()
    """What that is in a traced program."""
    step_operator: Any = None
    """PyTorch's function for one step, in a traced program; None if it has none."""

    @property
    def mode(self) -> str:
        """The name of the cell: `RNN_TANH`, `RNN_RELU`, `GRU`, `LSTM` or `LAYER_NORM_LSTM`."""
        return self.gates.mode

    @property
    def is_native(self) -> bool:
        """Whether PyTorch and ONNX have functions for it; others are loops of plain operations in both."""
        return bool(self.gates.operator)

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states: `h`, and `c` of an LSTM."""
        return self.gates.states

    def layer(self, input_size: int, hidden_size: int, **options: Any) -> RecurrentLayer:
        """A new module for whole sequences, with PyTorch's initial weights."""
        build: Any = self.layer_type
        return build(input_size, hidden_size, **self.options, **options)  # type: ignore[no-any-return]

    def owns(self, module: nn.Module) -> bool:
        """Whether a module of PyTorch (or a subclass of one) computes this cell."""
        return isinstance(module, (self.layer_type, self.step_type)) and all(
            getattr(module, name) == value for name, value in self.options.items()
        )

    def unpack(self, hx: Any) -> list[Any]:
        """The states one by one, from the form in which PyTorch's modules take and give them."""
        return list(hx) if len(self.states) > 1 else [hx]

    def pack(self, states: Sequence[Any]) -> Any:
        """The form in which PyTorch's modules take and give states: the only one, or a tuple of them."""
        return tuple(states) if len(self.states) > 1 else states[0]

    def run(self, sequence: Tensor, states: Sequence[Tensor], weights: Weights) -> Tensor:
        """One layer in one direction by PyTorch's function for sequences.

        Args:
            sequence: (T, B, I).
            states: (1, B, S), and c (1, B, H).
            weights: Of the layer, in PyTorch's order.

        Returns:
            The outputs (T, B, S).
        """
        present = [weight.detach() for weight in weights.values()]
        biased = "bias_ih" in weights
        return self.kernel(sequence, self.pack(states), present, biased, 1, 0.0, False, False, False)[0]

    def products(self, x: Tensor, h: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """W x + b_ih and U h + b_hh, (B, G * H) each; both biases are in the second one if no gate keeps them apart."""
        bias_ih, bias_hh = weights.get("bias_ih"), weights.get("bias_hh")
        apart = any(gate.state_scaled for gate in self.gates.gates)
        if "bias_ih" in weights and not apart:
            bias_ih, bias_hh = None, weights["bias_ih"] + weights["bias_hh"]
        return plain_linear(x, weights["weight_ih"], bias_ih), plain_linear(h, weights["weight_hh"], bias_hh)

    @abstractmethod
    def update(self, from_input: Tensor, from_state: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """The cell's equations.

        Args:
            from_input: W x + b_ih (..., G * H), gate after gate.
            from_state: U h + b_hh (..., G * H).
            states: The states before, h (..., S), and c (..., H).

        Returns:
            The new states, (..., H) each, before a projection.
        """

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> list[Tensor]:
        """One step of one layer, as plain operations.

        Args:
            x: (B, I).
            states: h (B, S), and c (B, H).
            weights: Of the layer.

        Returns:
            The new states, of the same shapes.
        """
        return self.update(*self.products(x, states[0], weights), states)


class Rnn(Cell):
    """h' = tanh(W x + b_ih + U h + b_hh), or relu of it."""

    layer_type = nn.RNN
    step_type = nn.RNNCell

    def __init__(self, table: CellGates, nonlinearity: Literal["tanh", "relu"]) -> None:
        """With a nonlinearity as PyTorch names it."""
        self.gates = table
        self.options = {"nonlinearity": nonlinearity}
        self.kernel = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}[nonlinearity]
        self.sequence_operators = {"tanh": (aten.rnn_tanh.input,), "relu": (aten.rnn_relu.input,)}[nonlinearity]
        self.step_operator = {"tanh": aten.rnn_tanh_cell.default, "relu": aten.rnn_relu_cell.default}[nonlinearity]
        self._activation = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]

    def update(self, from_input: Tensor, from_state: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """See `Cell.update`."""
        return [self._activation(from_input + from_state)]


class Gru(Cell):
    """r, z = sigmoid(.);  n = tanh(W_n x + b_in + r * (U_n h + b_hn));  h' = n + z * (h - n)."""

    gates = GRU
    layer_type = nn.GRU
    step_type = nn.GRUCell
    kernel = staticmethod(torch.gru)
    sequence_operators = (aten.gru.input,)
    step_operator = aten.gru_cell.default

    def update(self, from_input: Tensor, from_state: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """See `Cell.update`."""
        r_input, z_input, n_input = from_input.chunk(3, -1)
        r_state, z_state, n_state = from_state.chunk(3, -1)
        update = torch.sigmoid(z_input + z_state)
        new = torch.tanh(n_input + torch.sigmoid(r_input + r_state) * n_state)
        return [new + update * (states[0] - new)]


class Lstm(Cell):
    """i, f, o = sigmoid(.), g = tanh(.);  c' = f * c + i * g;  h' = o * tanh(c'), times W_hr with a projection."""

    gates = LSTM
    parameters = (*Cell.parameters, WEIGHT_HR)
    layer_type = nn.LSTM
    step_type = nn.LSTMCell
    kernel = staticmethod(torch.lstm)
    sequence_operators = (aten.lstm.input,)
    step_operator = aten.lstm_cell.default

    def update(self, from_input: Tensor, from_state: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """See `Cell.update`."""
        i, f, g, o = (from_input + from_state).chunk(4, -1)
        c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(c), c]

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> list[Tensor]:
        """See `Cell.step`."""
        h, c = super().step(x, states, weights)
        return [h @ weights["weight_hr"].t() if "weight_hr" in weights else h, c]


class LayerNormLstm(Cell):
    """An LSTM whose products and cell are normalised; see `layer_norm`."""

    gates = LAYER_NORM_LSTM
    parameters = (
        WEIGHT_IH,
        WEIGHT_HH,
        *(Parameter(f"{kind}_{name}", ("gates",)) for name in ("ih", "hh") for kind in ("scale", "shift")),
        *(Parameter(f"{kind}_c", ("units",)) for kind in ("scale", "shift")),
        Parameter("norm_width", ()),
    )
    layer_type = LayerNormLSTM
    step_type = LayerNormLSTMCell

    def run(self, sequence: Tensor, states: Sequence[Tensor], weights: Weights) -> Tensor:
        """See `Cell.run`."""
        now, outputs = [state[0] for state in states], []
        for x in sequence:
            now = self.step(x, now, weights)
            outputs.append(now[0])
        return torch.stack(outputs)

    def update(self, from_input: Tensor, from_state: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """There is none: the norms have parameters of their own, so a step needs more than sums of products."""
        raise NotImplementedError("a layer-normalised LSTM is computed by `step`")

    def step(self, x: Tensor, states: Sequence[Tensor], weights: Weights) -> list[Tensor]:
        """See `Cell.step`."""
        return layer_norm_lstm_step(x, states, weights)


CELLS: dict[str, Cell] = {
    cell.mode: cell for cell in (Rnn(RNN_TANH, "tanh"), Rnn(RNN_RELU, "relu"), Gru(), Lstm(), LayerNormLstm())
}
"""Mode -> cell: all that there are."""


def plain_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x (..., I) by a weight (O, I), written such that it becomes a MatMul, which quantizers know best."""
    product = x @ weight.t()
    return product if bias is None else product + bias

"""Recurrent cells as people write them in Python: Linear layers or raw parameters, a loop by hand, states of their own.

Every model takes (B, T, INPUT) and gives (B, T, CLASSES); sizes are distinct primes.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT, HIDDEN, CLASSES = 5, 13, 3


class Loop(nn.Module):
    """A cell in a loop over time, its states started at zeros of the cell's own size, and a head."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states = self.cell.start(x)
        outputs = []
        for step in x.unbind(1):
            states = self.cell(step, states)
            outputs.append(states[0])
        return self.head(torch.stack(outputs, 1))


class OwnCell(nn.Module):
    """One state that starts at zeros."""

    count = 1

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__()
        self.hidden_size = hidden

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.new_zeros(x.size(0), self.hidden_size) for _ in range(self.count))


def script(code: Any) -> Any:
    """`torch.jit.script` without PyTorch's warning that it will go: models in use have it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(code)


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-1, 1) / math.sqrt(shape[-1]))


class LayerNormLstm(OwnCell):
    """As in PyTorch's benchmark of fast RNNs: both products and the cell are normalised."""

    count = 2

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.weight_ih, self.weight_hh = _weight(4 * hidden, inputs), _weight(4 * hidden, hidden)
        self.norm_i, self.norm_h = nn.LayerNorm(4 * hidden), nn.LayerNorm(4 * hidden)
        self.norm_c = nn.LayerNorm(hidden)
        for norm in (self.norm_i, self.norm_h, self.norm_c):  # with scales of 1 a random cell is chaotic
            nn.init.uniform_(norm.weight, 0.1, 0.3)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = states
        gates = self.norm_i(x @ self.weight_ih.t()) + self.norm_h(h @ self.weight_hh.t())
        i, f, g, o = gates.chunk(4, 1)
        c = self.norm_c(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return o.sigmoid() * c.tanh(), c


class LayerNormPerGate(OwnCell):
    """A Linear layer and a norm for each gate, over the unit axis alone."""

    count = 2

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.gates = nn.ModuleList(nn.Linear(inputs + hidden, hidden) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(4))

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = states
        both = torch.cat([x, h], -1)
        i, f, g, o = (norm(gate(both)) for gate, norm in zip(self.gates, self.norms, strict=True))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Peephole(OwnCell):
    """The gates see the cell."""

    count = 2

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.x2h, self.h2h = nn.Linear(inputs, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        self.peep_i, self.peep_f, self.peep_o = (_weight(hidden) for _ in range(3))

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = states
        i, f, g, o = (self.x2h(x) + self.h2h(h)).chunk(4, -1)
        i, f = torch.sigmoid(i + self.peep_i * c), torch.sigmoid(f + self.peep_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.peep_o * c) * torch.tanh(c), c


class IndRnn(OwnCell):
    """Each unit sees only itself."""

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.weight, self.recurrent, self.bias = _weight(hidden, inputs), _weight(hidden), _weight(hidden)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.relu(functional.linear(x, self.weight, self.bias) + self.recurrent * states[0]),)


class Sru(nn.Module):
    """Simple recurrent unit: the products of all steps at once, then a loop without products."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.project = nn.Linear(INPUT, 4 * hidden)
        self.forget, self.reset = _weight(hidden), _weight(hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        new, f_input, r_input, skip = self.project(x).chunk(4, -1)
        c = torch.zeros_like(new[:, 0])
        outputs = []
        for t in range(x.size(1)):
            f = torch.sigmoid(f_input[:, t] + self.forget * c)
            r = torch.sigmoid(r_input[:, t] + self.reset * c)
            c = f * c + (1 - f) * new[:, t]
            outputs.append(r * c + (1 - r) * skip[:, t])
        return self.head(torch.stack(outputs, 1))


class MinGru(OwnCell):
    """Gates that do not see the state."""

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.to_z, self.to_h = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = torch.sigmoid(self.to_z(x))
        return ((1 - z) * states[0] + z * self.to_h(x),)


class Zoneout(OwnCell):
    """A GRU by hand whose state is kept by a constant part in evaluation."""

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.x2h, self.h2h = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h = states[0]
        (xr, xz, xn), (hr, hz, hn) = self.x2h(x).chunk(3, -1), self.h2h(h).chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        new = (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * h
        return (0.1 * h + 0.9 * new,)


class GruD(OwnCell):
    """The state decays by what is missing in the input."""

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.decay = nn.Linear(inputs, hidden)
        self.gates, self.new = nn.Linear(inputs + hidden, 2 * hidden), nn.Linear(inputs + hidden, hidden)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h = torch.exp(-torch.relu(self.decay(x))) * states[0]
        r, z = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
        new = torch.tanh(self.new(torch.cat([x, r * h], 1)))
        return ((1 - z) * h + z * new,)


class ConvLstm(nn.Module):
    """An LSTM whose products are convolutions along the features (as one row of a picture)."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1 + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), self.conv.out_channels // 4, x.size(2))
        outputs = []
        for t in range(x.size(1)):
            i, f, g, o = self.conv(torch.cat([x[:, t, None], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h.mean(-1))
        return self.head(torch.stack(outputs, 1))


@script
def _lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x @ weight_ih.t() + h @ weight_hh.t() + bias).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class ScriptedStep(OwnCell):
    """The equations of a step are a scripted function."""

    count = 2

    def __init__(self, hidden: int = HIDDEN, inputs: int = INPUT) -> None:
        super().__init__(hidden)
        self.weight_ih, self.weight_hh = _weight(4 * hidden, inputs), _weight(4 * hidden, hidden)
        self.bias = _weight(4 * hidden)

    def forward(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return _lstm_step(x, states[0], states[1], self.weight_ih, self.weight_hh, self.bias)


class _ToScript(nn.Module):
    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.x2h, self.h2h = nn.Linear(INPUT, hidden), nn.Linear(hidden, hidden)
        self.hidden_size = hidden

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype)
        outputs: list[Tensor] = []
        for t in range(x.size(1)):
            h = torch.tanh(self.x2h(x[:, t]) + self.h2h(h))
            outputs.append(h)
        return torch.stack(outputs, 1)


class ScriptedLayer(nn.Module):
    """The whole layer with its loop is a scripted module."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.rnn = script(_ToScript(hidden))
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x))


class Elman(nn.Module):
    """A tanh RNN from Linear layers, the loop and everything in one module."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.i2h, self.h2h = nn.Linear(INPUT, hidden), nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), self.h2h.in_features, dtype=x.dtype)
        outputs = []
        for t in range(x.size(1)):
            h = torch.tanh(self.i2h(x[:, t]) + self.h2h(h))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


CELLS = (LayerNormLstm, LayerNormPerGate, Peephole, IndRnn, MinGru, Zoneout, GruD, ScriptedStep)
"""Those that are called at every step."""


def models(hidden: int = HIDDEN) -> dict[str, nn.Module]:
    """Name of a kind -> a model of it with random weights and so many units."""
    return {cell.__name__: Loop(cell(hidden)) for cell in CELLS} | {
        kind.__name__: kind(hidden) for kind in (Sru, ConvLstm, ScriptedLayer, Elman)
    }

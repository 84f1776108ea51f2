"""Cells of the model's own code stream: their states are found in their calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.streaming.step import StepModel
from tests.streaming.models import INPUT, WIDTH, example, surveyed
from tests.surgery import own_cells

KINDS = ["LayerNormLstm", "Peephole", "IndRnn", "MinGru", "GruD", "ScriptedStep"]


class Cell(nn.Module):
    def __init__(self, inputs=INPUT):
        super().__init__()
        self.both = nn.Linear(inputs + WIDTH, WIDTH)

    def forward(self, x, h=None):
        h = x.new_zeros(len(x), WIDTH) if h is None else h
        return torch.tanh(self.both(torch.cat([x, h], 1)))


class Loop(nn.Module):
    """Calls `step` at every position."""

    def forward(self, x):
        state, outputs = self.start(x), []
        for position in x.unbind(1):
            state, output = self.step(position, state)
            outputs.append(output)
        return torch.stack(outputs, 1)

    def start(self, x):
        return None


class WithoutState(Loop):
    """Is given no state at first, then one by its name."""

    def __init__(self):
        super().__init__()
        self.cell = Cell()

    def step(self, x, state):
        state = self.cell(x) if state is None else self.cell(x, h=state)
        return state, state


class Learned(Loop):
    """Starts from a parameter."""

    def __init__(self):
        super().__init__()
        self.cell, self.first = Cell(), nn.Parameter(torch.randn(WIDTH))

    def start(self, x):
        return self.first.expand(len(x), WIDTH)

    def step(self, x, state):
        state = self.cell(x, state)
        return state, state


class Stack(nn.Module):
    """Cells in a cell; their states are a list."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([Cell(), Cell(WIDTH)])

    def forward(self, x, states):
        new = []
        for cell, state in zip(self.cells, states, strict=True):
            x = cell(x, state)
            new.append(x)
        return x, new


class Stacked(Loop):
    def __init__(self):
        super().__init__()
        self.stack = Stack()

    def start(self, x):
        return [x.new_zeros(len(x), WIDTH)] * 2

    def step(self, x, states):
        output, states = self.stack(x, states)
        return states, output


class Twice(Loop):
    """One cell at two places, beside a cell of PyTorch."""

    def __init__(self):
        super().__init__()
        self.cell, self.gru = Cell(), nn.GRUCell(WIDTH, INPUT)

    def start(self, x):
        return x.new_zeros(len(x), WIDTH), x.new_ones(len(x), WIDTH), None

    def step(self, x, states):
        a = self.cell(x, states[0])
        c = self.gru(a, states[2])
        b = self.cell(c, states[1])
        return (a, b, c), b


def chained(model, chunk):
    """Steps of a model over eight positions, and the whole at once."""
    survey = surveyed(model)
    step, (x,) = StepModel(model, survey, chunk=chunk), example(3, 8)
    states, outputs = step.initial_states(3), []
    for position in range(0, 8, chunk):
        output, *states = step(x[:, position : position + chunk], *states)
        outputs.append(output)
    return torch.cat(outputs, 1), model(x)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("kind", [*KINDS, WithoutState, Learned, Stacked, Twice])
def test_steps_of_own_cells_are_the_whole_sequence(kind, chunk):
    torch.manual_seed(0)
    model = own_cells.models()[kind] if isinstance(kind, str) else kind()
    steps, whole = chained(model.double().eval(), chunk)
    torch.testing.assert_close(steps, whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (WithoutState, ["cell.h"]),
        (Stacked, ["stack.states.0", "stack.states.1"]),
        (Twice, ["cell.call.0.h", "cell.call.1.h", "gru.h"]),
    ],
)
def test_their_states_are_called_as_their_arguments(model, names):
    assert [spec.name for spec in surveyed(model().double().eval()).states] == names


class FromInputs(Learned):
    def start(self, x):
        return x[:, 0, :1] * self.first


class TimeFirst(Learned):
    """Its state has another axis in front."""

    def start(self, x):
        return self.first.expand(1, len(x), WIDTH)

    def step(self, x, state):
        state = self.cell(x, state)
        return state, state[0]

    class Cell(Cell):
        def forward(self, x, h):
            return super().forward(x, h[0])[None]

    def __init__(self):
        super().__init__()
        self.cell = self.Cell()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FromInputs, "the state `h` of `cell` depends on the model's inputs at first"),
        (TimeFirst, r"the state `h` of `cell` is of shape \(1, 2, 6\), whose first axis is not the batch of 2"),
    ],
)
def test_a_state_without_a_value_to_start_from_is_refused(model, message):
    with pytest.raises(ExportError, match=message):
        surveyed(model().double().eval())

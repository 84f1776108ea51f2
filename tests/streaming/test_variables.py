"""States that the model's own code keeps in variables stream: they are what a loop hands from round to round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.streaming.step import StepModel
from tests.streaming.models import INPUT, WIDTH, example, surveyed
from tests.surgery import own_cells


class Model(nn.Module):
    """Layers for the loops below."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(INPUT, WIDTH), nn.Linear(WIDTH, 3)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.cell, self.start = nn.LSTMCell(INPUT + WIDTH, WIDTH), nn.Parameter(torch.randn(1, WIDTH))
        self.decay = nn.Parameter(-torch.rand(WIDTH, 4))

    def forward(self, x):
        return self.head(torch.stack(list(self.rounds(x)), 1))


class Learned(Model):
    """Starts from a parameter."""

    def rounds(self, x):
        h = self.start.expand(x.size(0), -1)
        for t in range(x.size(1)):
            h = torch.tanh(self.enter(x[:, t]) + self.first(h))
            yield h


class TwoFromOne(Model):
    """One tensor of zeros starts both states."""

    def rounds(self, x):
        h = c = torch.zeros(x.shape[0], WIDTH, dtype=x.dtype)
        for step in x.unbind(1):
            c = torch.sigmoid(self.first(h)) * c + torch.tanh(self.enter(step))
            h = torch.sigmoid(self.second(h)) * torch.tanh(c)
            yield h


class LayerByLayer(Model):
    """The same lines run once for each layer."""

    def layer(self, x, own):
        h, outputs = x.new_zeros(x.size(0), WIDTH), []
        for t in range(x.size(1)):
            h = torch.tanh(x[:, t] + own(h))
            outputs.append(h)
        return torch.stack(outputs, 1)

    def forward(self, x):
        return self.head(self.layer(self.layer(self.enter(x), self.first), self.second))


class AllLayersAtEachStep(Model):
    """States in a list, and lines that run once for each layer in each round."""

    def rounds(self, x):
        states = [x.new_zeros(x.size(0), WIDTH) for _ in range(2)]
        for t in range(x.size(1)):
            y = self.enter(x[:, t])
            for place, own in enumerate((self.first, self.second)):
                states[place] = torch.tanh(y + own(states[place]))
                y = states[place]
            yield y


class InputFeeding(Model):
    """What a round gave is joined to the input of a cell of PyTorch's, whose own state streams as always."""

    def rounds(self, x):
        h, c, context = (x.new_zeros(x.size(0), WIDTH) for _ in range(3))
        for t in range(x.size(1)):
            h, c = self.cell(torch.cat([x[:, t], context], 1), (h, c))
            context = torch.tanh(self.first(h))
            yield context


class CellStateTwice(Model):
    """The state of a cell of PyTorch's is read beside it too, and the outputs are written into one tensor."""

    def forward(self, x):
        h, c, outputs = x.new_zeros(len(x), WIDTH), x.new_zeros(len(x), WIDTH), x.new_zeros(len(x), x.size(1), 3)
        for t in range(x.size(1)):
            h, c = self.cell(torch.cat([x[:, t], h], 1), (h, c))
            outputs[:, t] = self.head(h)
        return outputs


class InPlace(Model):
    def rounds(self, x):
        h = x.new_zeros(x.size(0), WIDTH)
        for t in range(x.size(1)):
            h *= 0.9
            h += torch.tanh(self.enter(x[:, t]) + self.first(h))
            yield h.clone()


class PartOfATensor(Model):
    def rounds(self, x):
        h = x.new_ones(x.size(0), WIDTH)
        for t in range(x.size(1)):
            h[:, :3] = torch.tanh(self.enter(x[:, t]) + self.first(h))[:, :3]
            yield h.clone()


class WithoutBatch(Model):
    """The zeros have no axis of samples."""

    def rounds(self, x):
        h = torch.zeros(WIDTH, dtype=x.dtype)
        for t in range(x.size(1)):
            h = torch.where(x[:, t, :1] > 0, torch.tanh(self.enter(x[:, t]) + self.first(h)), h)
            yield h


class StateSpace(Model):
    """A state with two axes behind the samples'."""

    def rounds(self, x):
        y = self.enter(x)
        h = x.new_zeros(x.size(0), WIDTH, 4)
        for t in range(x.size(1)):
            h = torch.exp(self.decay) * h + torch.einsum("bh,bn->bhn", y[:, t], x[:, t, :4])
            yield torch.einsum("bhn,bn->bh", h, x[:, t, 1:])


class Window(Model):
    """A buffer of the last three inputs."""

    def rounds(self, x):
        buffer = x.new_zeros(x.size(0), 3, INPUT)
        for t in range(x.size(1)):
            buffer = torch.cat([buffer[:, 1:], x[:, t : t + 1]], 1)
            yield torch.relu(self.enter(buffer[:, 0] - buffer.mean(1)))


KINDS = (
    Learned,
    TwoFromOne,
    LayerByLayer,
    AllLayersAtEachStep,
    InputFeeding,
    CellStateTwice,
    InPlace,
    PartOfATensor,
    WithoutBatch,
    StateSpace,
    Window,
)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("kind", [*KINDS, "Elman", "Sru", "ConvLstm"])
def test_steps_are_the_whole_sequence(kind, chunk):
    torch.manual_seed(0)
    model = (own_cells.models()[kind] if isinstance(kind, str) else kind()).double().eval()
    step, (x,) = StepModel(model, surveyed(model), chunk=chunk), example(3, 8)
    states, outputs = step.initial_states(3), []
    for position in range(0, 8, chunk):
        output, *states = step(x[:, position : position + chunk], *states)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), model(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (TwoFromOne, ["h", "c"]),
        (LayerByLayer, ["h.0", "h.1"]),
        (InputFeeding, ["cell.h", "cell.c", "context"]),
        (AllLayersAtEachStep, ["state.0", "state.1"]),
    ],
)
def test_states_are_called_as_in_the_code(kind, names):
    assert [spec.name for spec in surveyed(kind().double().eval()).states] == names


class Backwards(Model):
    """No round of a step is given what the round of the position before gave."""

    def forward(self, x):
        h, outputs = x.new_zeros(x.size(0), WIDTH), []
        for t in reversed(range(x.size(1))):
            h = torch.tanh(self.enter(x[:, t]) + self.first(h))
            outputs.append(h)
        return self.head(torch.stack(outputs[::-1], 1))


class Refined(Model):
    """Three rounds over all positions: no state."""

    def forward(self, x):
        h = self.enter(x)
        for _ in range(3):
            h = torch.tanh(self.first(h))
        return self.head(h)


@torch.no_grad()
def test_a_loop_against_time_is_not_taken_for_the_steps_of_a_stream():
    model = Backwards().double().eval()
    step, (x,) = StepModel(model, surveyed(model)), example(3, 8)
    output, *_ = step(x[:, :1], *step.initial_states(3))
    assert not torch.allclose(output, model(x)[:, :1], atol=1e-3)  # which `try_steps` sees


def test_rounds_that_do_not_follow_time_hold_no_state():
    assert surveyed(Refined().double().eval()).states == ()

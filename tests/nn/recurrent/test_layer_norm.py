"""The layer-normalised LSTM against its equations written with PyTorch's layer norm, in every form of a call."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.nn.recurrent.layer_norm import LayerNormLSTM, LayerNormLSTMCell
from compressor.nn.recurrent.layers import cell_of, parts
from compressor.nn.recurrent.replay import unroll

INPUT, HIDDEN, BATCH, LENGTH = 3, 5, 2, 7


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def naive(x, states, w):
    """One step by PyTorch's layer norm."""
    h, c = states
    gates = layer_norm(x @ w["weight_ih"].t(), (4 * HIDDEN,), w["scale_ih"], w.get("shift_ih"))
    gates = gates + layer_norm(h @ w["weight_hh"].t(), (4 * HIDDEN,), w["scale_hh"], w.get("shift_hh"))
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * layer_norm(c, (HIDDEN,), w["scale_c"], w.get("shift_c")).tanh(), c


def run_naively(layer, x, part, states):
    outputs = []
    for position in x.flip(0) if part.direction else x:
        states = naive(position, states, part.weights(layer))
        outputs.append(states[0])
    y = torch.stack(outputs)
    return y.flip(0) if part.direction else y


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_states_and_gradients_are_those_of_the_naive_form(bias):
    layer = randomised(LayerNormLSTM(INPUT, HIDDEN, 2, bias=bias, bidirectional=True))
    x = torch.randn(LENGTH, BATCH, INPUT).double().requires_grad_()
    start = torch.randn(2, 4, BATCH, HIDDEN).double()
    y, (h, c) = layer(x, (start[0], start[1]))
    expected, every = x, parts(layer)
    for first in (0, 2):
        expected = torch.cat(
            [run_naively(layer, expected, every[i], (start[0, i], start[1, i])) for i in (first, first + 1)], -1
        )
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(h[2], y[-1, :, :HIDDEN])
    torch.testing.assert_close(h[3], y[0, :, HIDDEN:])
    assert c.shape == (4, BATCH, HIDDEN)
    gradients = (torch.autograd.grad(result.square().sum(), x, retain_graph=True)[0] for result in (y, expected))
    torch.testing.assert_close(*gradients)


def test_a_cell_takes_the_steps_of_the_layer():
    layer = randomised(LayerNormLSTM(INPUT, HIDDEN))
    cell = LayerNormLSTMCell(INPUT, HIDDEN).double()
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in layer.state_dict().items()})
    x, state = torch.randn(LENGTH, BATCH, INPUT).double(), None
    for position in x:
        state = cell(position, state)
    torch.testing.assert_close(state[0], layer(x)[0][-1])


@pytest.mark.parametrize("lengths", [[7, 3], [3, 7]])
def test_packed_sequences_give_what_each_sample_gives_alone(lengths):
    layer = randomised(LayerNormLSTM(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True))
    x = torch.randn(BATCH, LENGTH, INPUT).double()
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    output, (h, c) = layer(packed)
    padded = pad_packed_sequence(output, batch_first=True)[0]
    for sample, length in enumerate(lengths):
        alone, (last_h, last_c) = layer(x[sample, :length])
        torch.testing.assert_close(padded[sample, :length], alone)
        torch.testing.assert_close(h[:, sample], last_h)
        torch.testing.assert_close(c[:, sample], last_c)


def test_a_replay_sees_every_layer():
    layer = randomised(LayerNormLSTM(INPUT, HIDDEN, 2))
    x = torch.randn(LENGTH, BATCH, INPUT).double()
    *_, last = unroll(layer, x)
    torch.testing.assert_close(last.outputs, layer(x)[0])
    assert cell_of(layer).mode == layer.mode == "LAYER_NORM_LSTM"

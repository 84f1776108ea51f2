"""Step by step a model gives what it gives on the whole sequence, or is refused by the name of the layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import ExportError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import PartWeights, UnevenRecurrent
from compressor.streaming import step as streaming
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

INPUT, WIDTH, BATCH, LENGTH = 5, 6, 3, 13


class Layer(nn.Module):
    """A recurrent layer behind a Linear layer."""

    def __init__(self, layer):
        super().__init__()
        self.given = nn.Linear(INPUT, WIDTH)
        self.layer = layer

    def forward(self, x):
        return self.layer(self.given(x))[0]


class Twice(nn.Module):
    """One layer at two places, the second time from a state that was learned."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(INPUT, INPUT, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 1, 1, INPUT))

    def forward(self, x):
        start = self.start.expand(-1, -1, x.size(0), -1)
        return self.layer(self.layer(x)[0], (start[0], start[1]))[0]


class Cells(nn.Module):
    """Cells in a loop, one of them twice a position."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTMCell(INPUT, WIDTH), nn.GRUCell(WIDTH, WIDTH)
        self.third = nn.RNNCell(WIDTH, 4, nonlinearity="relu", bias=False)

    def forward(self, x):
        a, b, c, d, outputs = None, None, None, None, []
        for position in range(x.size(1)):
            a = self.first(x[:, position], a)
            b = self.second(a[0], b)
            c = self.second(b, c)
            d = self.third(c, d)
            outputs.append(d)
        return torch.stack(outputs, 1)


class LayerInLoop(nn.Module):
    """A whole layer, one position at a time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(INPUT, WIDTH, 2, batch_first=True)

    def forward(self, x):
        state, outputs = None, []
        for position in range(x.size(1)):
            output, state = self.layer(x[:, position : position + 1], state)
            outputs.append(output)
        return torch.cat(outputs, 1)


class Packed(nn.Module):
    """Packs its sequences, which are full."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(INPUT, WIDTH, 2)

    def forward(self, x):
        packed = pack_padded_sequence(x.transpose(0, 1), torch.full((x.size(0),), x.size(1)))
        return pad_packed_sequence(self.layer(packed)[0])[0].transpose(0, 1)


class Attention(nn.Module):
    """Two encoder layers with a causal mask; `attention` makes what stands for the one in them."""

    def __init__(self, attention=None, mask="causal", batch_first=True):
        super().__init__()
        self.given, self.mask, self.batch_first = nn.Linear(INPUT, WIDTH), mask, batch_first
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 7, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        for one in self.encoder.layers if attention else ():
            one.self_attn = attention(one.self_attn)

    def forward(self, x):
        y = self.given(x)
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1), dtype=y.dtype)
        if self.mask == "window":
            mask = mask.masked_fill(torch.ones_like(mask, dtype=torch.bool).tril(-3), -torch.inf)
        y = y if self.batch_first else y.transpose(0, 1)
        y = self.encoder(y, mask=None if self.mask == "none" else mask, is_causal=self.mask == "causal")
        return y if self.batch_first else y.transpose(0, 1)


def _graph_stack():
    return RecurrentStack(GraphRecurrent("lstm", WIDTH, watts_strogatz(6, 2, 0.5, 1), 2, batch_first=True), 4)


def _aaren(attention):
    aaren = AarenAttention.from_attention(attention)
    nn.init.normal_(aaren.query)
    return aaren


MODELS = {
    "rnn": lambda: Layer(nn.RNN(WIDTH, 7, 3, batch_first=True)),
    "relu": lambda: Layer(nn.RNN(WIDTH, 7, nonlinearity="relu", batch_first=True, bias=False)),
    "gru": lambda: Layer(nn.GRU(WIDTH, 7, 2, batch_first=True)),
    "lstm": lambda: Layer(nn.LSTM(WIDTH, 7, 2, batch_first=True)),
    "uneven": lambda: Layer(UnevenRecurrent("LSTM", WIDTH, [[7], [3]], batch_first=True)),
    "low rank": lambda: Layer(LowRankRecurrent("LSTM", WIDTH, 7, [[(2, 3)], [(None, 2)]], batch_first=True)),
    "graph": lambda: Layer(_graph_stack()),
    "twice": Twice,
    "cells": Cells,
    "layer in a loop": LayerInLoop,
    "packed": Packed,
    "attention": Attention,
    "attention, time first": lambda: Attention(batch_first=False),
    "compact attention": lambda: Attention(CompactMultiheadAttention.from_module),
    "aaren": lambda: Attention(_aaren),
}


def _example(batch, length):
    return (torch.randn(batch, length, INPUT, dtype=torch.float64),)


def _survey(model):
    return streaming.survey(model, _example, (7, 11))


@pytest.fixture(autouse=True)
def _plain_attention():
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.manual_seed(0)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize(("chunk", "plain"), [(1, True), (4, True), (4, False)])
@pytest.mark.parametrize("name", MODELS)
def test_chained_steps_give_what_the_whole_sequence_gives(name, chunk, plain):
    model = MODELS[name]().double().eval()
    step = streaming.StepModel(model, _survey(model), chunk=chunk, plain=plain)
    (x,) = _example(BATCH, 3 * chunk)
    states, outputs = step.initial_states(BATCH), []
    with torch.no_grad():
        for part in x.split(chunk, 1):
            output, *states = step(part, *states)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, 1), model(x), **SAME_FLOAT64)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("gru", ["layer.h.0", "layer.h.1"]),
        ("low rank", ["layer.h.0", "layer.c.0", "layer.h.1", "layer.c.1"]),
        ("uneven", ["layer.layers.0.h", "layer.layers.0.c", "layer.layers.1.h", "layer.layers.1.c"]),
        ("twice", ["layer.call.0.h", "layer.call.0.c", "layer.call.1.h", "layer.call.1.c"]),
        ("cells", ["first.h", "first.c", "second.call.0.h", "second.call.1.h", "third.h"]),
        ("attention", [f"encoder.layers.{i}.self_attn.{kind}" for i in (0, 1) for kind in "kv"]),
        ("aaren", [f"encoder.layers.{i}.self_attn.{kind}" for i in (0, 1) for kind in "acm"]),
    ],
)
def test_states_carry_the_names_of_their_layers(name, names):
    model = MODELS[name]().double().eval()
    assert [spec.name for spec in _survey(model).states] == names


def test_a_learned_initial_state_is_where_a_stream_starts():
    model = Twice().double().eval()
    initial = {spec.name: spec.initial for spec in _survey(model).states}
    assert not initial["layer.call.0.h"].any()
    torch.testing.assert_close(initial["layer.call.1.c"], model.start[1, 0].detach())


@pytest.mark.parametrize("mode", ["RNN_TANH", "RNN_RELU", "GRU", "LSTM"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_step_of_a_cell_and_its_gradients_are_those_of_pytorch(mode, bias):
    cell = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell}.get(mode, nn.RNNCell)(INPUT, WIDTH, bias).double()
    if mode.startswith("RNN"):
        cell.nonlinearity = mode[4:].lower()
    state = [torch.randn(BATCH, WIDTH).double().requires_grad_() for _ in range(2 if mode == "LSTM" else 1)]
    x = torch.randn(BATCH, INPUT).double().requires_grad_()
    weights = PartWeights(cell.weight_ih, cell.weight_hh, (cell.bias_ih, cell.bias_hh) if bias else ())
    leaves = [x, *state, *cell.parameters()]
    expected = cell(x, tuple(state) if mode == "LSTM" else state[0])
    found = streaming.cell_step(mode, x, state, weights)
    expected = list(expected) if mode == "LSTM" else [expected]
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    gradients = [torch.autograd.grad(sum(part.sin().sum() for part in parts), leaves) for parts in (found, expected)]
    torch.testing.assert_close(*gradients, **SAME_GRADIENT)


class FromInputs(nn.Module):
    """Starts from a state that the inputs decide."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(INPUT, INPUT, batch_first=True)

    def forward(self, x):
        return self.layer(x, x.new_ones(1, x.size(0), 1) * x[:, :1].transpose(0, 1))[0]


class EverySecond(nn.Module):
    """Calls a cell at every second position."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(INPUT, WIDTH)

    def forward(self, x):
        h = None
        for position in range(0, x.size(1), 2):
            h = self.cell(x[:, position], h)
        return h


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Layer(nn.GRU(WIDTH, 7, bidirectional=True)), "`layer` is bidirectional"),
        (lambda: Attention(mask="none"), "`encoder.layers.0.self_attn` has no step for one position: it has no mask"),
        (lambda: Attention(mask="window"), "`encoder.layers.0.self_attn` has no step for one position: its mask is"),
        (FromInputs, "the initial state of `layer` depends on the model's inputs"),
        (EverySecond, "`cell` is called 4 times at length 7 and 6 times at length 11"),
    ],
)
def test_what_has_no_step_is_refused_by_name(model, message):
    with pytest.raises(ExportError) as caught:
        _survey(model().double().eval())
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_layers_of_other_models_and_of_later_calls_work_as_always():
    model, other = Layer(nn.GRU(WIDTH, 7, batch_first=True)).double(), nn.GRU(WIDTH, 7, batch_first=True).double()
    x = torch.randn(BATCH, LENGTH, WIDTH).double()
    expected = other(x)[0]
    model.other = [other]  # not a part of the model, but called by it
    forward = model.forward
    model.forward = lambda given: forward(given) + 0 * model.other[0](x)[0].sum()
    assert [spec.name for spec in _survey(model).states] == ["layer.h"]
    assert torch.equal(other(x)[0], expected)

"""Causal models of every kind of layer that streams."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.recurrent.cells import CELLS
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.streaming.survey import survey

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


class Causal(nn.Conv1d):
    """A convolution that pads its own input on the left."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Chomped(nn.Conv1d):
    """A convolution that pads both sides and cuts off the right one."""

    def __init__(self, *sizes, dilation=1, **options):
        super().__init__(*sizes, dilation=dilation, padding=(sizes[2] - 1) * dilation, **options)

    def forward(self, x):
        return super().forward(x)[..., : -self.padding[0]]


class Sliced(Chomped):
    """The same, cut to the length of what it was given."""

    def forward(self, x):
        return nn.Conv1d.forward(self, x)[:, :, : x.size(2)]


class Windows(nn.Module):
    """Dilated convolutions with skips around them, as in a temporal convolutional network, and a GRU on top."""

    def __init__(self, kind):
        super().__init__()
        self.enter, self.rnn = nn.Conv1d(INPUT, WIDTH, 1), nn.GRU(WIDTH, 4, batch_first=True)
        self.layers = nn.ModuleList(kind(WIDTH, WIDTH, 3, dilation=2**index) for index in range(3))
        self.depthwise = kind(WIDTH, WIDTH, 2, groups=WIDTH, bias=False)
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x):
        y = self.enter(x.transpose(1, 2))
        for layer in self.layers:
            y = y + torch.relu(layer(y))
        y = self.depthwise(self.depthwise(self.norm(y)))
        return self.rnn(y.transpose(1, 2))[0]


class Spectrum(nn.Module):
    """Convolutions over positions and features, only causal over positions."""

    def __init__(self, *, time_first):
        super().__init__()
        self.time_first = time_first
        kernel, padding = ((3, 3), (0, 1)) if time_first else ((3, 3), (1, 0))
        self.first = nn.Conv2d(1, 3, kernel, padding=padding)
        self.second = nn.Conv2d(3, 2, (2, 1) if time_first else (1, 2), dilation=(2, 1) if time_first else (1, 2))
        self.head = nn.Linear(2 * INPUT, 4)

    def forward(self, x):
        y = x.unsqueeze(1) if self.time_first else x.transpose(1, 2).unsqueeze(1)
        pad = (0, 0, 2, 0) if self.time_first else (2, 0)
        y = torch.relu(self.first(nn.functional.pad(y, pad)))
        y = self.second(nn.functional.pad(y, pad))
        y = y if self.time_first else y.transpose(2, 3)
        return self.head(y.transpose(1, 2).flatten(2))


MODELS = {
    "rnn": lambda: Layer(nn.RNN(WIDTH, 7, 3, batch_first=True)),
    "relu": lambda: Layer(nn.RNN(WIDTH, 7, nonlinearity="relu", batch_first=True, bias=False)),
    "gru": lambda: Layer(nn.GRU(WIDTH, 7, 2, batch_first=True)),
    "lstm": lambda: Layer(nn.LSTM(WIDTH, 7, 2, batch_first=True)),
    "uneven": lambda: Layer(UnevenRecurrent("LSTM", WIDTH, [[7], [3]], batch_first=True)),
    "low rank": lambda: Layer(LowRankRecurrent("LSTM", WIDTH, 7, [[(2, 3)], [(None, 2)]], batch_first=True)),
    "graph": lambda: Layer(_graph_stack()),
    **{
        mode.lower(): lambda cell=cell: Layer(cell.layer(WIDTH, 7, num_layers=2, batch_first=True))
        for mode, cell in CELLS.items()
        if not cell.is_native
    },
    "twice": Twice,
    "cells": Cells,
    "layer in a loop": LayerInLoop,
    "packed": Packed,
    "attention": Attention,
    "attention, time first": lambda: Attention(batch_first=False),
    "compact attention": lambda: Attention(CompactMultiheadAttention.from_module),
    "aaren": lambda: Attention(_aaren),
    "padded convolutions": lambda: Windows(Causal),
    "chomped convolutions": lambda: Windows(Chomped),
    "sliced convolutions": lambda: Windows(Sliced),
    "normed convolutions": lambda: Windows(lambda *sizes, **options: weight_norm(Causal(*sizes, **options))),
    "convolutions over a spectrum": lambda: Spectrum(time_first=True),
    "convolutions over a turned spectrum": lambda: Spectrum(time_first=False),
}


def example(batch, length):
    return (torch.randn(batch, length, INPUT, dtype=torch.float64),)


def surveyed(model):
    return survey(model, example, (7, 11))

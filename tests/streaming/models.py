"""Causal models of every kind of layer that streams."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.layer_norm import LayerNormLSTM
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


MODELS = {
    "rnn": lambda: Layer(nn.RNN(WIDTH, 7, 3, batch_first=True)),
    "relu": lambda: Layer(nn.RNN(WIDTH, 7, nonlinearity="relu", batch_first=True, bias=False)),
    "gru": lambda: Layer(nn.GRU(WIDTH, 7, 2, batch_first=True)),
    "lstm": lambda: Layer(nn.LSTM(WIDTH, 7, 2, batch_first=True)),
    "uneven": lambda: Layer(UnevenRecurrent("LSTM", WIDTH, [[7], [3]], batch_first=True)),
    "low rank": lambda: Layer(LowRankRecurrent("LSTM", WIDTH, 7, [[(2, 3)], [(None, 2)]], batch_first=True)),
    "graph": lambda: Layer(_graph_stack()),
    "layer norm": lambda: Layer(LayerNormLSTM(WIDTH, 7, 2, batch_first=True)),
    "twice": Twice,
    "cells": Cells,
    "layer in a loop": LayerInLoop,
    "packed": Packed,
    "attention": Attention,
    "attention, time first": lambda: Attention(batch_first=False),
    "compact attention": lambda: Attention(CompactMultiheadAttention.from_module),
    "aaren": lambda: Attention(_aaren),
}


def example(batch, length):
    return (torch.randn(batch, length, INPUT, dtype=torch.float64),)


def surveyed(model):
    return survey(model, example, (7, 11))

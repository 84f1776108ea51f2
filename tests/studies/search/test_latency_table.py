"""Layers by kind and size, each measured once."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from compressor.studies.search.latency_table import LatencyTable, LayerSize, layer_sizes


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(10, 2)

    def forward(self, x):
        packed = pack_padded_sequence(x, torch.tensor([x.shape[1]]), batch_first=True)
        self.rnn(packed)
        return self.out(self.rnn(x)[0])


class Task:
    length = 7

    def example(self, batch, length):
        return (torch.zeros(batch, length, 3),)


def test_every_call_of_a_layer_is_seen_with_its_steps_and_sizes():
    sizes = layer_sizes(Net(), Task())
    layers = [LayerSize("LSTM", 7, 3, 5)] * 2 + [LayerSize("LSTM", 7, 10, 5)] * 2
    assert sizes == [*layers, *layers, LayerSize("MatMul", 7, 10, 2)]


def test_a_size_is_measured_once():
    table = LatencyTable()
    size = LayerSize("GRU", 20, 8, 8)
    assert table.of(size) > 0.0
    assert table.of(size) == table.known[size]
    assert list(table.known) == [size]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, kdim=3, vdim=3)

    def forward(self, x):
        queries = torch.zeros(*x.shape[:2], 6)
        return self.attention(queries, key=x, value=x, need_weights=False)[0]


def test_attention_has_four_products_though_it_calls_no_linear_layer():
    products = [LayerSize("MatMul", 7, *sizes) for sizes in ((6, 6), (3, 6), (3, 6), (6, 6))]
    assert layer_sizes(Attending(), Task()) == products


def test_what_any_call_takes_counts_for_no_layer():
    table = LatencyTable()
    table.__dict__["call"] = 1e6
    assert table.of(LayerSize("MatMul", 2, 3, 4)) == 0.0

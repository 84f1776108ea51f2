"""A weight that a model uses in several places is stored once, whatever layout each place wants it in."""

from __future__ import annotations

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from compressor.formats import Job
from compressor.nn.factorisation import Spectrum
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.testing import RandomTask
from exporters.onnx import Options, export
from tests.exporters.conftest import FEW_EXPORTS

WIDTH, WORDS = 8, 31
TIMED = {0: "batch", 1: "time"}
TASK = RandomTask({"words": TIMED}, {"y": TIMED}, lambda batch, length: (torch.randint(WORDS, (batch, length)),))


class Tied(nn.Module):
    """An embedding, layers, and the embedding's weight again as that of the output layer."""

    def __init__(self, *layers):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, WORDS)
        self.head.weight = self.embedding.weight

    def forward(self, words):
        x = self.embedding(words)
        for layer in self.layers:
            result = layer(x)
            x = (result[0] if isinstance(result, tuple) else result)[..., :WIDTH].tanh()
        return self.head(x)


class Turned(nn.Linear):
    """Its weight transposed."""

    def forward(self, x):
        return functional.linear(x, self.weight.t(), self.bias)


class Pointwise(nn.Conv1d):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class FirstCell(nn.LSTMCell):
    """A cell on the first position, added to all."""

    def forward(self, x):
        return x + super().forward(x[:, 0])[0][:, None]


KINDS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "turned": lambda: Turned(WIDTH, WIDTH),
    "conv": lambda: Pointwise(WIDTH, WIDTH, 1),
    "three": lambda: nn.Linear(WIDTH, 3 * WIDTH),
    "four": lambda: nn.Linear(WIDTH, 4 * WIDTH, bias=False),
    "rnn": lambda: nn.RNN(WIDTH, WIDTH, batch_first=True),
    "gru": lambda: nn.GRU(WIDTH, WIDTH, 2, batch_first=True),
    "lstm": lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True),
    "cell": lambda: FirstCell(WIDTH, WIDTH),
}


def matrices(model):
    return [
        (module, name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() > 1
    ]


def tie(model, first, second):
    """Make the second matrix the first one, where they have as many rows and columns."""
    (module, name), (other, other_name) = first, second
    ours, theirs = getattr(module, name), getattr(other, other_name)
    if ours.dim() == theirs.dim() and ours.shape == theirs.shape:
        setattr(other, other_name, ours)


def stored(path):
    return sum(torch.Size(item.dims).numel() for item in onnx.load(path).graph.initializer if len(item.dims) > 1)


def unique(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)


def biases(model):
    """Room for B of recurrent nodes, which is a matrix and holds two biases."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)


@FEW_EXPORTS
@given(kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=5), data=st.data())
def test_random_ties_are_stored_once(tmp_path, kinds, data):
    torch.manual_seed(0)
    model = Tied(*(KINDS[kind]() for kind in kinds))
    found = matrices(model)
    pairs = st.tuples(st.sampled_from(found), st.sampled_from(found))
    for first, second in data.draw(st.lists(pairs, min_size=1, max_size=8)):
        tie(model, first, second)
    model.layers.append(model.layers[0])
    artifact = export(Job(model.eval(), TASK, tmp_path / "model.onnx", Options(opset=data.draw(st.integers(17, 23)))))
    assert artifact.parity.passed
    assert stored(tmp_path / "model.onnx") <= unique(model) + biases(model)


def lstm_and_cell():
    lstm, cell = nn.LSTM(WIDTH, WIDTH, batch_first=True), FirstCell(WIDTH, WIDTH)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(lstm, f"{name}_l0"))
    return lstm, cell


def both_directions():
    lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
    for name in ("weight_ih", "weight_hh"):
        setattr(lstm, f"{name}_l0_reverse", getattr(lstm, f"{name}_l0"))
    return (lstm,)


def scans():
    """Scan bodies: a low-rank layer twice, a projected one twice."""
    gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
    low = LowRankRecurrent.from_module(gru, {"weight_hh_l0": Spectrum(gru.weight_hh_l0).factors(2)})
    projected = nn.LSTM(WIDTH, 11, proj_size=WIDTH, batch_first=True)
    return low, projected, low, projected


@pytest.mark.parametrize("layers", [lstm_and_cell, both_directions, scans], ids=lambda f: f.__name__)
def test_a_weight_in_several_layouts_is_stored_once(tmp_path, layers):
    torch.manual_seed(0)
    model = Tied(*layers()).eval()
    artifact = export(Job(model, TASK, tmp_path / "model.onnx", Options()))
    assert artifact.parity.passed
    assert stored(tmp_path / "model.onnx") <= unique(model) + biases(model)


def test_a_looped_block_and_a_tied_embedding_are_stored_once_also_in_the_step_file(tmp_path):
    torch.manual_seed(0)
    gru, block = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.Tanh())
    model = Tied(*[gru, block] * 3).eval()
    artifact = export(Job(model, TASK, tmp_path / "model.onnx", Options(stream=True)))
    assert artifact.operators["GRU"] == 3
    for name in ("model.onnx", "model.step.onnx"):
        assert unique(model) <= stored(tmp_path / name) <= unique(model) + biases(model)

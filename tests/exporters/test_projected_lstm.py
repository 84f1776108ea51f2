"""An LSTM with `proj_size`: ONNX has no node for it, so its file holds a Scan, and its step file plain operations."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.formats import Job
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.exporters.conftest import features_task

TIMED = {0: "batch", 1: "time"}
INPUT, HIDDEN, SIZE = 5, 11, 3


class Projected(nn.Module):
    """Gives everything that the layer gives; takes its states, or packs by lengths."""

    def __init__(self, **options):
        super().__init__()
        self.rnn = nn.LSTM(INPUT, HIDDEN, proj_size=SIZE, **{"batch_first": True} | options)

    def forward(self, features, *states):
        x = features if self.rnn.batch_first else features.transpose(0, 1)
        y, (h, c) = self.rnn(x, states or None)
        return y if self.rnn.batch_first else y.transpose(0, 1), h, c


class Packed(Projected):
    def forward(self, features, lengths, *states):
        packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        y, (h, c) = self.rnn(packed, states or None)
        return pad_packed_sequence(y, batch_first=True, total_length=features.size(1))[0], h, c


class Tagger(Projected):
    def forward(self, features):
        return self.rnn(features)[0]


def task_for(model, *, states):
    rows = model.rnn.num_layers * (2 if model.rnn.bidirectional else 1)
    inputs = {"features": TIMED} | ({"lengths": {0: "batch"}} if isinstance(model, Packed) else {})
    inputs |= {name: {1: "batch"} for name in ("h", "c")} if states else {}

    def example(batch, length):
        given = [torch.randn(batch, length, INPUT)]
        given += [random_lengths(batch, length)] if isinstance(model, Packed) else []
        given += [torch.randn(rows, batch, SIZE), torch.randn(rows, batch, HIDDEN)] if states else []
        return tuple(given)

    return RandomTask(inputs, {"y": TIMED, "h_n": {1: "batch"}, "c_n": {1: "batch"}}, example)


@pytest.mark.parametrize(
    ("cls", "options", "states"),
    [
        (Projected, {"num_layers": 2, "bidirectional": True, "bias": False}, False),
        (Projected, {"num_layers": 3, "batch_first": False}, True),
        (Packed, {"num_layers": 2, "bidirectional": True}, True),
    ],
)
def test_outputs_and_last_states_agree_at_an_unseen_size(tmp_path, cls, options, states):
    torch.manual_seed(0)
    model = cls(**options).eval()
    task = task_for(model, states=states)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options()))
    inputs = task.example(7, 31)
    assert_agrees(tmp_path / "model.onnx", model, *inputs)
    directions = 2 if model.rnn.bidirectional else 1
    assert artifact.operators["Scan"] == model.rnn.num_layers * directions
    assert artifact.parity.passed


def test_its_weights_are_stored_once_and_nothing_else_is(tmp_path):
    model = Projected(num_layers=2).eval()
    export(Job(model, task_for(model, states=False), tmp_path / "model.onnx", Options()))
    initializers = onnx.load(tmp_path / "model.onnx").graph.initializer
    stored = sum(torch.Size(item.dims).numel() for item in initializers if len(item.dims) > 1)
    assert stored == sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)


@pytest.mark.parametrize(("cells", "chunk"), [("plain", 1), ("native", 3)])
def test_its_steps_equal_the_sequence_and_carry_a_small_h_and_a_large_c(tmp_path, cells, chunk):
    torch.manual_seed(0)
    model = Tagger(num_layers=2).eval()
    options = Options(stream={"cells": cells, "chunk": chunk})
    artifact = export(Job(model, features_task({"y": TIMED}), tmp_path / "model.onnx", options))
    states = {item.name: item.shape for item in artifact.step.stream.states}
    assert states == {"rnn.h.0": (1, 3), "rnn.c.0": (1, 11), "rnn.h.1": (1, 3), "rnn.c.1": (1, 11)}
    assert artifact.step.parity.passed
    assert artifact.step.chained.passed
    assert ("Scan" in artifact.step.operators) == (cells == "native")

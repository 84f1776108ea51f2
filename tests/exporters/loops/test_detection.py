"""Loops are known before anything is traced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporters.capture import program as torch_capture
from exporters.capture.native_recurrent import prepare
from exporters.loops import capture
from exporters.loops.detection import steps_by_length
from tests.exporters.conftest import features_task
from tests.exporters.loops.forms import FORMS, Together, task_for

LENGTHS = 6, 8


class Layers(nn.Module):
    """Layers that PyTorch calls once, whatever the length."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 3, 2, batch_first=True, bidirectional=True), nn.Linear(6, 2)

    def forward(self, x):
        lengths = torch.full((x.size(0),), x.size(1))
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.size(1))
        return self.head(y).softmax(-1)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_loop_over_time_calls_pytorch_more_often_for_longer_inputs(form):
    model = form().eval()
    prepare(model)
    assert steps_by_length(model, task_for(model), LENGTHS)


def test_layers_of_pytorch_are_no_loop():
    model = Layers().eval()
    prepare(model)
    assert not steps_by_length(model, features_task(), LENGTHS)


def test_a_model_that_fails_is_left_to_the_trace():
    assert not steps_by_length(nn.Linear(4, 2), features_task(), LENGTHS)


def test_a_loop_is_not_traced_at_an_open_length_and_the_examples_stay_the_same(monkeypatch):
    traced = []
    original = torch_capture.capture

    def counted(model, inputs, *arguments):
        traced.append(tuple(inputs[0].shape))
        return original(model, inputs, *arguments)

    monkeypatch.setattr(torch_capture, "capture", counted)
    model = Together([next(iter(FORMS))]).eval()
    task = task_for(model, length=11)
    prepare(model)
    torch.manual_seed(7)
    assert not capture.capture(model, task, task.example(3, 11), task.inputs).bodies
    assert [shape[1] for shape in traced] == [6, 8, 11]

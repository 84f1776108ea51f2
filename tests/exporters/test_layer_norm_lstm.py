"""A layer-normalised LSTM that lost units: its loop is a `Scan` in the file, its step file plain operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.nn.recurrent.layer_norm import LayerNormLSTM
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.surgery.topologies import EveryStep
from tests.tolerances import EXPORTED_FLOAT32

TIMED = {0: "batch", 1: "time"}


class OneInput(EveryStep):
    def forward(self, x):
        return super().forward(x, None)


@pytest.mark.slow
def test_its_files_agree_after_units_are_removed(tmp_path):
    torch.manual_seed(0)
    model = OneInput(LayerNormLSTM).eval()
    for name, parameter in model.named_parameters():
        if "scale" in name:  # with scales of 1 a random cell is chaotic
            nn.init.uniform_(parameter, 0.1, 0.3)
    examples = [normal(5)(2, 3), normal(5)(3, 7)]
    smaller = prune(model, {}, examples, names=["rnn"], amount=Amount(count=6)).model
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), smaller, length=6, max_length=12)
    artifact = export(Job(smaller, task, tmp_path / "model.onnx", Options(stream=True)))
    check_file(tmp_path / "model.onnx", smaller, task, ((1, 1), (4, 37)), **EXPORTED_FLOAT32)
    assert artifact.operators["Scan"] == 1
    assert artifact.step.parity.passed
    assert "Scan" not in artifact.step.operators
    assert [(state.name, state.shape) for state in artifact.step.stream.states] == [
        ("rnn.h", (1, 7)),
        ("rnn.c", (1, 7)),
    ]

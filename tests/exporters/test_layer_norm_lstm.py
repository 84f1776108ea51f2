"""A layer-normalised LSTM that lost units: its loop is a `Scan` in the file, its step file plain operations."""

from __future__ import annotations

from typing import ClassVar

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.nn.recurrent.layer_norm import LayerNormLSTM
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from exporters.quantization import quantize
from tests.surgery.topologies import HIDDEN, EveryStep
from tests.tolerances import EXPORTED_FLOAT32

TIMED = {0: "batch", 1: "time"}


class OneInput(EveryStep):
    def forward(self, x):
        return super().forward(x, None)


class BothWays(OneInput):
    options: ClassVar = {"batch_first": True, "num_layers": 2, "bidirectional": True}
    head_inputs = 2 * HIDDEN


def built(kind=OneInput):
    torch.manual_seed(0)
    model = kind(LayerNormLSTM).eval()
    for name, parameter in model.named_parameters():
        if "scale" in name:  # with scales of 1 a random cell is chaotic
            nn.init.uniform_(parameter, 0.1, 0.3)
    return model


def smaller_and_task(model, count):
    examples = [normal(5)(2, 3), normal(5)(3, 7)]
    smaller = prune(model, {}, examples, names=["rnn"], amount=Amount(count=count)).model
    return smaller, RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), smaller, length=6, max_length=12)


@pytest.mark.slow
def test_its_files_agree_after_units_are_removed(tmp_path):
    smaller, task = smaller_and_task(built(), 6)
    artifact = export(Job(smaller, task, tmp_path / "model.onnx", Options(stream=True)))
    check_file(tmp_path / "model.onnx", smaller, task, ((1, 1), (4, 37)), **EXPORTED_FLOAT32)
    assert artifact.operators["Scan"] == 1
    assert artifact.step.parity.passed
    assert "Scan" not in artifact.step.operators
    assert [(state.name, state.shape) for state in artifact.step.stream.states] == [
        ("rnn.h", (1, 7)),
        ("rnn.c", (1, 7)),
    ]


@pytest.mark.slow
def test_both_directions_and_layers_agree_after_units_are_removed(tmp_path):
    smaller, task = smaller_and_task(built(BothWays), 5)
    artifact = export(Job(smaller, task, tmp_path / "model.onnx", Options()))
    check_file(tmp_path / "model.onnx", smaller, task, ((1, 1), (4, 37)), **EXPORTED_FLOAT32)
    assert artifact.operators["Scan"] == 4


@pytest.mark.slow
def test_it_is_stored_in_8_bits_after_units_are_removed(tmp_path):
    smaller, task = smaller_and_task(built(), 3)
    plain = export(Job(smaller, task, tmp_path / "model.onnx", Options()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "SMALLEST", 1)  # the model is smaller than what is worth rounding
        rounded = export(Job(smaller, task, tmp_path / "rounded.onnx", Options(precision="int8")))
    stored = [tensor for tensor in _initializers(onnx.load(tmp_path / "rounded.onnx").graph) if len(tensor.dims) == 2]
    in_bytes = [tensor for tensor in stored if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    assert len(in_bytes) >= 2  # the matrices of the input and of the state
    assert rounded.bytes < plain.bytes


def _initializers(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _initializers(attribute.g)

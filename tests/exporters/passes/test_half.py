"""`precision: float16`: half the bytes, files that load, inputs and outputs as they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import ParityError
from compressor.formats import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from exporters.onnx import Options, export
from exporters.passes import external_data
from exporters.passes.half import as_half
from tests.exporters import test_projected_lstm as projected
from tests.exporters.conftest import features_task
from tests.exporters.onnx_files.test_step import TAGGER, Tagger

HALF = Options(precision="float16")
TIMED = {0: "batch", 1: "time"}
OUT = {"y": TIMED}


class Recurrent(nn.Module):
    """Recurrent layers with the batch first, an encoder layer with a mask of -1e9, and a head."""

    def __init__(self, cls=nn.LSTM, width=32):
        super().__init__()
        self.rnn = cls(5, width, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, features):
        x = self.rnn(features)[0]
        mask = torch.full((x.size(1), x.size(1)), -1e9).triu(1)
        return self.head(self.encoder(x, src_mask=mask))


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_recurrent_model_is_half_as_large_and_agrees_at_unseen_sizes(tmp_path, cls):
    torch.manual_seed(0)
    model = Recurrent(cls).eval()
    whole = export(Job(model, features_task(OUT), tmp_path / "whole.onnx", Options()))
    half = export(Job(model, features_task(OUT), tmp_path / "half.onnx", HALF))
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    assert whole.bytes - half.bytes == pytest.approx(weights / 2, rel=0.1)
    assert onnx.TensorProto.FLOAT not in kinds
    assert [item.dtype for item in (*half.inputs, *half.outputs)] == ["float32", "float32"]
    features = torch.randn(7, 23, 5)
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(tmp_path / "half.onnx")(features), model(features), atol=5e-3, rtol=1e-2)


def test_a_large_model_is_converted_alike_without_its_weights_in_sight(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, (small, large) = Recurrent(nn.GRU).eval(), (tmp_path / name for name in ("small.onnx", "large.onnx"))
    export(Job(model, features_task(OUT), small, HALF))
    monkeypatch.setattr(external_data, "_HOLLOW_FROM_BYTES", 1024)
    export(Job(model, features_task(OUT), large, HALF))
    assert small.read_bytes() == large.read_bytes()


def test_a_scan_and_a_step_file_are_half_precision_too(tmp_path):
    torch.manual_seed(0)
    model = projected.Tagger(num_layers=2).eval()
    options = Options(precision="float16", stream=True)
    artifact = export(Job(model, features_task(OUT), tmp_path / "model.onnx", options))
    assert artifact.operators["Scan"] == 2
    assert artifact.step.parity.passed
    body = next(node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type == "Scan").attribute[0].g
    assert {value.type.tensor_type.elem_type for value in body.input} == {onnx.TensorProto.FLOAT16}


def test_native_nodes_in_a_step_file_with_packed_sequences(tmp_path):
    torch.manual_seed(0)
    options = Options(precision="float16", stream={"cells": "native"})
    assert export(Job(Tagger().eval(), TAGGER, tmp_path / "model.onnx", options)).step.chained.passed


def test_inputs_and_outputs_are_half_where_they_are_asked_to_be(tmp_path):
    torch.manual_seed(0)
    options = HALF.model_copy(update={"float_io": False})
    artifact = export(Job(Recurrent().eval(), features_task(OUT), tmp_path / "model.onnx", options))
    assert [item.dtype for item in (*artifact.inputs, *artifact.outputs)] == ["float16", "float16"]
    assert OnnxFile(tmp_path / "model.onnx")(torch.randn(1, 3, 5).half()).dtype == torch.float16


def test_a_tolerance_that_half_precision_cannot_meet_is_an_error(tmp_path):
    with pytest.raises(ParityError, match=r"atol 1e-06"):
        export(
            Job(Recurrent().eval(), features_task(OUT), tmp_path / "m.onnx", Options(precision="float16", atol=1e-6))
        )
    assert not list(tmp_path.iterdir())


def test_finite_numbers_stay_finite_and_a_guard_does_not_become_zero():
    assert as_half(np.float32([-1e9, 1e9, -np.inf, 1e-12])).tolist() == [-65504, 65504, -np.inf, 0]
    assert as_half(np.float32(1e-12)) > 0

"""What exports of one model share: the trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.formats import EXPORTERS, Job
from tests.exporters.conftest import features_task

FILES = (("onnx", {}), ("onnx", {"precision": "int8"}), ("ort", {}), ("onnx", {"opset": 17}))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, features):
        return self.out(self.rnn(features)[0])


@pytest.fixture
def traces(monkeypatch):
    """One entry a call of PyTorch's tracer."""
    calls: list[int] = []
    trace = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: calls.append(1) or trace(*args, **kwargs))
    return calls


def test_formats_of_one_model_are_traced_once_and_are_the_files_that_they_are_alone(tmp_path, traces):
    torch.manual_seed(0)
    model, task = Tagger().eval(), features_task({"scores": {0: "batch", 1: "time"}})
    counts, contents = {}, {}
    for shared in (None, {}):
        counts[shared is None], contents[shared is None] = [], []
        for word, options in FILES:
            before, path = len(traces), tmp_path / f"model.{word}"
            exporter = EXPORTERS[word]
            exporter.export(Job(model, task, path, exporter.options(**options), shared=shared))
            counts[shared is None].append(len(traces) - before)
            if word == "onnx":  # ONNX Runtime's own converter gives other bytes each time
                contents[shared is None].append(path.read_bytes())
    assert contents[True] == contents[False]
    assert all(counts[True])
    first, rounded, converted, other = counts[False]
    assert first
    assert other  # another opset is another graph
    assert rounded == converted == 0

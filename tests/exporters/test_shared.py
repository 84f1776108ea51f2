"""What exports of one model share: the trace, and second-order statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.formats import EXPORTERS, Job
from compressor.testing import RandomTask, normal
from exporters import onnx
from exporters.quantization import allocation
from tests.exporters.conftest import features_task
from tests.nets import Scores

FILES = (("onnx", {}), ("onnx", {"precision": "int8"}), ("ort", {}), ("onnx", {"opset": 17}))


@pytest.fixture
def traces(monkeypatch):
    """One entry a call of PyTorch's tracer."""
    calls: list[int] = []
    trace = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: calls.append(1) or trace(*args, **kwargs))
    return calls


def test_formats_of_one_model_are_traced_once_and_are_the_files_that_they_are_alone(tmp_path, traces):
    torch.manual_seed(0)
    model, task = Scores(5, 16, 3).eval(), features_task({"scores": {0: "batch", 1: "time"}})
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


class Trained(RandomTask):
    """With data to calibrate on."""

    def batches(self, generator):
        yield (torch.randn(16, 9, 5, generator=generator),), None


@pytest.mark.slow
def test_second_order_statistics_are_shared_by_files_of_all_budgets_and_change_no_byte(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = Scores(5, 24, 16)
    network.rnn = nn.LSTM(5, 24, batch_first=True)
    model, task = (
        network.eval(),
        Trained({"features": {0: "batch", 1: "time"}}, {"scores": {0: "batch", 1: "time"}}, normal(5)),
    )
    measured, contents = [], {}
    losses_by_bits = allocation.losses_by_bits
    monkeypatch.setattr(allocation, "losses_by_bits", lambda *args: measured.append(1) or losses_by_bits(*args))
    for shared in (None, {}):
        contents[shared is None] = []
        for bits in (4.5, 6.0):
            path = tmp_path / "model.onnx"
            options = onnx.Options(precision="mixed", rounding={"bits": bits, "max_error": 1.0})
            onnx.export(Job(model, task, path, options, shared=shared))
            contents[shared is None].append((path.read_bytes(), len(measured)))
    assert [content for content, _ in contents[True]] == [content for content, _ in contents[False]]
    assert contents[True][0][0] != contents[True][1][0]
    alone, together = ([count for _, count in contents[which]] for which in (True, False))
    assert alone[1] == 2 * alone[0]
    assert together[1] == together[0]

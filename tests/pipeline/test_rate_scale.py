"""Another sampling rate without training: the file of a state-space layer answers as before, that of a GRU does not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import compressor
from compressor.methods.base import State
from compressor.methods.convert import Convert
from compressor.methods.retrain import Retrain
from compressor.nn.converted.lssl import LsslLayer, set_rate_scale
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.pipeline.export_alone import export_alone
from compressor.recipe.exports import options_of
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.guard import GuardedTask
from compressor.testing import RandomTask, normal
from tests.methods.conftest import make_context

PERIODS = (64.0, 32.0, 16.0)
"""Each is the next one's at half the sampling rate."""
STEPS = 64


def waves(count, generator, every=1):
    """Noisy sines of any phase (N, T, 1), every so manieth sample of them, and which period each has."""
    which = torch.randint(len(PERIODS), (count,), generator=generator)
    phase = 2 * torch.pi * torch.rand(count, 1, generator=generator)
    times = torch.arange(0, STEPS, every)
    clean = torch.sin(2 * torch.pi * times / torch.tensor(PERIODS)[which, None] + phase)
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator))[..., None], which


class Net(nn.Module):
    """Which period a wave has, from the last step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, len(PERIODS))

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def wave_task(model):
    axes = {0: "batch", 1: "time"}
    task = RandomTask(
        {"x": axes}, {"y": {0: "batch"}}, lambda batch, length: (torch.randn(batch, length, 1),), model,
        length=STEPS, max_length=STEPS,
    )  # fmt: skip

    def batches(generator):
        for _ in range(30):
            x, which = waves(64, generator)
            yield (x,), which

    task.batches, task.loss = batches, nn.functional.cross_entropy
    return task


def trained_gru():
    torch.manual_seed(0)
    model, generator = Net(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        x, which = waves(64, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), which).backward()
        optimizer.step()
    return model.eval()


def accuracy(forward, every):
    x, which = waves(1000, torch.Generator().manual_seed(1), every)
    return float((torch.as_tensor(forward(x)).argmax(1) == which).double().mean())


@pytest.mark.slow
def test_a_file_for_half_the_rate_answers_within_a_point_where_the_original_loses(tmp_path):
    gru = trained_gru()
    state, task = State(copy.deepcopy(gru)), wave_task(gru)
    for step in (Convert(to="lssl", distill_steps=200), Retrain(epochs=5, lr=3e-3, schedule="cosine", distill=True)):
        state = step.apply(state, make_context(gru, task)).state
    files = {}
    for name, model, scale in (("gru", gru, None), ("lssl", state.model, None), ("half", state.model, 2.0)):
        path = tmp_path / f"{name}.onnx"
        artifact = compressor.export(model, task.example(2, 32), path, rate_scale=scale, programs=False)
        assert artifact.parity.passed
        files[name] = OnnxFile(path)
    before = accuracy(files["gru"], 1)
    assert before > 0.97
    assert accuracy(files["lssl"], 1) > before - 0.01
    assert accuracy(files["half"], 2) > before - 0.01
    assert accuracy(files["gru"], 2) < before - 0.2
    assert accuracy(files["lssl"], 2) < before - 0.2


class Oscillators(nn.Module):
    """A state-space layer alone."""

    def __init__(self):
        super().__init__()
        layer = LsslLayer(3, 5, projection=4, hidden=7, oscillators=2)
        self.rnn = ConvertedRecurrent([layer], batch_first=True, bidirectional=False, has_cell_state=False, dropout=0.0)

    def forward(self, x):
        return self.rnn(x)[0]


def test_the_file_of_a_task_has_the_rate_and_its_report_says_so(tmp_path):
    torch.manual_seed(0)
    model, axes = Oscillators().eval(), {0: "batch", 1: "time"}
    task = GuardedTask(RandomTask({"x": axes}, {"y": axes}, normal(3), model), "here")
    report = export_alone(task, [options_of("onnx", programs=False)], tmp_path, measure=False, rate_scale=2.0)
    assert "1 state-space layer takes steps 2 times as long as in training" in report.notes[-1]
    x = torch.randn(2, 40, 3)
    with torch.no_grad():
        before = model(x)
        set_rate_scale(model, 2.0)
        torch.testing.assert_close(OnnxFile(tmp_path / "model.onnx")(x), model(x), atol=1e-5, rtol=1e-4)
        assert float((model(x) - before).abs().max()) > 1e-3

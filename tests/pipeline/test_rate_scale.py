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
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask
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

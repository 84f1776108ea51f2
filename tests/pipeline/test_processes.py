"""`torchrun ... compressor run`: processes share the batches of a step; the numbers are those of one process."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TASK = """
import random

import numpy as np
import torch
from torch import nn

from compressor import Task


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 2)
        self.rare = nn.Linear(3, 2)

    def forward(self, x):
        y = self.drop(self.rnn(x)[0][:, -1])
        if self.training and float(x[0, 0, 0]) > 0.5:
            return self.head(y) + self.rare(x[:, 0])
        return self.head(y)


class Steps(Task):
    inputs = {"x": {0: "batch", 1: "time"}}
    outputs = {"y": {0: "batch"}}
    length, max_length = 6, 12

    def model(self):
        torch.manual_seed(SEED)
        return Net()

    def example(self, batch, length):
        return (torch.randn(batch, length, 3),)

    def batches(self, generator):
        for index in range(BATCHES):
            x = torch.rand(4, 5, 3, generator=generator) + 0.1 * torch.rand(4, 5, 3)
            x = x + 0.1 * random.random() + 0.1 * float(np.random.rand())
            yield (x,), (x.sum((1, 2)) > 9).long()

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward):
        x = torch.rand(64, 5, 3, generator=torch.Generator().manual_seed(1))
        return (forward(x).argmax(1) == (x.sum((1, 2)) > 7.5)).float()
"""
RECIPE = """
schema_version: 1
name: shared
seed: 3
steps:
  - {method: magnitude, prune: units, ratio: 0.25}
  - {method: retrain, epochs: 3, accumulate: ACCUMULATE, lr: 1e-2, schedule: cosine, noise_eta: 0.01}
  - {method: retrain, epochs: 1, accumulate: ACCUMULATE, distill: true, keep_best: true, optimizer: sgd}
exports: [{format: onnx}]
"""


def run(folder, processes, *, accumulate=4, batches=10, seed="1", out=None):
    """The command's result, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "task.py").write_text(textwrap.dedent(TASK).replace("BATCHES", str(batches)).replace("SEED", seed))
    (folder / "recipe.yaml").write_text(RECIPE.replace("ACCUMULATE", str(accumulate)))
    command = [sys.executable, "-m", "compressor.cli", "run", "recipe.yaml", "--task", "task.py", "--out", "out"]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*torchrun, "--no-python", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        [*command, "--device", "cpu"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def trained(folder):
    return load_file(folder / "out" / "model.safetensors"), json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    for processes in (1, 2):
        result = run(tmp_path / str(processes), processes)
        assert result.returncode in (0, 1), result.stderr
    (alone, first), (shared, second) = trained(tmp_path / "1"), trained(tmp_path / "2")
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-5)
    for one, two in zip(first["steps"], second["steps"], strict=True):
        assert [row["metric"] for row in one["history"]] == pytest.approx([row["metric"] for row in two["history"]])
    assert "2 processes shared the 4 batches of each step" in second["steps"][1]["notes"]
    assert (first["conditions"]["processes"], second["conditions"]["processes"]) == (1, 2)


@pytest.mark.slow
def test_what_processes_cannot_share_is_refused_before_any_work(tmp_path):
    result = run(tmp_path / "run", 2, accumulate=3)
    assert "`accumulate: 3` batches of a step cannot be shared equally by 2 processes" in result.stderr
    assert "`steps.1` (retrain)" in result.stderr
    assert not (tmp_path / "run" / "out").exists()


@pytest.mark.slow
def test_a_process_whose_task_gives_another_model_is_refused(tmp_path):
    result = run(tmp_path / "run", 2, seed='int(__import__("os").environ["RANK"])')
    assert "the task gives process 1 a model with other weights than process 0" in result.stderr
    assert not (tmp_path / "run" / "out" / "report.json").exists()

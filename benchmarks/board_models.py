"""The models that are measured as C on emulated boards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.battery import BatteryTask, battery
from compressor.testing import RandomTask, normal

if TYPE_CHECKING:
    from pathlib import Path

TIMED = {0: "batch", 1: "time"}


class Wake(nn.Module):
    """A wake word: two GRU layers of 96 units on 40 features."""

    features = 40

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.rnn, self.head = nn.GRU(40, 96, 2, batch_first=True), nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 40) -> (B, T, 3)."""
        return self.head(self.rnn(x)[0])


class Beat(nn.Module):
    """A beat tracker: in each frame a convolution along 136 bands, then two LSTM layers of 150 units."""

    features = 136

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.conv, self.dense = nn.Conv1d(1, 2, 10, stride=2), nn.Linear(2 * 64, 150)
        self.rnn, self.head = nn.LSTM(150, 150, 2, batch_first=True), nn.Linear(150, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 136) -> (B, T, 3)."""
        bands = self.conv(x.flatten(0, 1).unsqueeze(1)).relu().flatten(1)
        return self.head(self.rnn(self.dense(bands).unflatten(0, x.shape[:2]))[0])


def lstms(weights: Path | None) -> dict[str, tuple[nn.Module, Any]]:
    """The models of floats that onnx2c takes, with their tasks."""
    torch.manual_seed(0)
    beat, model = Beat().eval(), battery(weights)
    return {
        "battery, LSTM 2 x 64": (model, BatteryTask(model)),
        "beat tracker, conv, LSTM 2 x 150": (beat, RandomTask({"x": TIMED}, {"y": TIMED}, normal(beat.features), beat)),
    }

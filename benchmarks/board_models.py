"""The models that are measured as C on emulated boards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.battery import BatteryTask, battery
from compressor.methods.conversion_targets import builder
from compressor.methods.convert import Convert
from compressor.nn.converted.recurrent import ConvertedRecurrent
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
        self.rnn: Any = nn.GRU(40, 96, 2, batch_first=True)
        self.head = nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 40) -> (B, T, 3)."""
        return self.head(self.rnn(x)[0])


CONVERSIONS: dict[str, dict[str, Any]] = {
    "fsmn": {"to": "fsmn"},
    "para_rnn": {"to": "para_rnn"},
    "lssl": {"to": "lssl"},
    "lssl, dense state": {"to": "lssl", "state": "dense"},
    "additive": {"to": "additive"},
    "additive, memory cache of 8": {"to": "additive", "memory_cache": 8},
    "plstm": {"to": "plstm"},
    "m2rnn": {"to": "m2rnn"},
}
"""Name -> options of `convert`, at their defaults."""


def converted_wake(options: dict[str, Any]) -> Wake:
    """The wake word with random layers of a target of `convert` in place of its GRU layers."""
    model = Wake()
    step = Convert.model_validate(options)
    build = builder(step.to, step.model_dump(), model.rnn)
    like = model.head.weight
    layers = [*build(40, 96, like), *build(96, 96, like)]
    model.rnn = ConvertedRecurrent(layers, batch_first=True, bidirectional=False, has_cell_state=False, dropout=0.0)
    return model


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

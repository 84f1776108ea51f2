"""The public battery model: two LSTM layers of 64 units that follow a state of charge; a task and its recipe.

The weights are those of `soc_model_legacy.onnx` of the public repository aturevsk/SOC_model (inputs there are ten steps
of five numbers, drawn from a normal distribution); without that file the same layers learn to follow a slow filter.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.recipe.model import Recipe
from compressor.runtimes.forward import open_forward
from compressor.task.unlabelled import UnlabelledTask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STEPS, FEATURES, UNITS = 10, 5, 64
_EPOCHS = 300
_NAMES = tuple(tuple(f"onnx::LSTM_{first + place}" for place in range(3)) for first in (225, 249))
"""Of W, R and B of each layer in the file."""


class Battery(nn.Module):
    """A number for each sequence, from the last step."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, UNITS, 2, batch_first=True)
        self.first, self.last = nn.Linear(UNITS, UNITS), nn.Linear(UNITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 5) -> (B, 1)."""
        return self.last(torch.relu(self.first(self.rnn(x)[0][:, -1])))


class BatteryTask(UnlabelledTask):
    """How closely its outputs are kept."""

    inputs: Mapping[str, Mapping[int, str]] = {"x": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"y": {0: "batch"}}
    length, min_length, max_length = STEPS, 1, 2 * STEPS

    def __init__(self, model: nn.Module) -> None:
        """Of a model with weights."""
        super().__init__()
        self._given = model

    def model(self) -> nn.Module:
        """A copy each time."""
        return copy.deepcopy(self._given)

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        """As the public repository tests it."""
        return (torch.randn(batch, length, FEATURES),)

    def samples(self, generator: torch.Generator) -> Any:
        """As many as an epoch needs."""
        return [(torch.randn(64, STEPS, FEATURES, generator=generator),) for _ in range(64)]


def battery(path: Path | None) -> nn.Module:
    """The model with the weights of the public file, or trained here."""
    torch.manual_seed(0)
    model = Battery()
    if path is None:
        return _trained(model)
    import onnx
    from onnx import numpy_helper

    stored = onnx.load(path).graph.initializer
    known = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in stored}
    state = {f"first.{end}": known[f"head.0.{end}"] for end in ("weight", "bias")}
    state |= {f"last.{end}": known[f"head.2.{end}"] for end in ("weight", "bias")}
    for layer, names in enumerate(_NAMES):
        w, r = (_gates(known[name][0]) for name in names[:2])
        halves = known[names[2]][0].chunk(2)
        state |= {f"rnn.weight_ih_l{layer}": w, f"rnn.weight_hh_l{layer}": r}
        state |= {f"rnn.bias_{kind}_l{layer}": _gates(half) for kind, half in zip(("ih", "hh"), halves, strict=True)}
    model.load_state_dict(state)
    return model.eval()


def _gates(rows: Tensor) -> Tensor:
    """From ONNX's order i, o, f, c to PyTorch's i, f, c, o."""
    i, o, f, c = rows.chunk(4)
    return torch.cat([i, f, c, o])


def _trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    weights = torch.linspace(-0.5, 1.0, FEATURES) * 0.05
    decay = 0.8 ** torch.arange(STEPS - 1, -1, -1.0)
    for _ in range(_EPOCHS):
        x = torch.randn(64, STEPS, FEATURES)
        wanted = ((x @ weights).tanh() * decay).sum(1, keepdim=True)
        loss = (model(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def smaller(ratio: float) -> Recipe:
    """Units removed, what is left taught by the original, 8 bits on a Cortex-M4."""
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "battery",
            "steps": [
                {"method": "magnitude", "prune": "units", "ratio": ratio},
                {"method": "retrain", "epochs": 30, "lr": 2e-3, "schedule": "cosine", "distill": True,
                 "distill_loss": "mse", "distill_weight": 1.0},
            ],
            "exports": [
                {"format": "c", "precision": "int8", "activations": "int16", "math": "fast", "target": "cortex-m4",
                 "quantized_error": 0.5},
            ],
            "limits": {"flash_bytes": 16384, "ram_bytes": 2048},
        }
    )  # fmt: skip


def errors(path: Path, model: nn.Module, task: BatteryTask) -> str:
    """Mean and largest |file - PyTorch| on 100 sequences of the public test's distribution."""
    x = torch.from_numpy(np.random.RandomState(42).randn(100, STEPS, FEATURES).astype(np.float32))
    forward = open_forward(path, task)
    try:
        with torch.no_grad():
            off = (forward(x) - model(x)).abs()  # type: ignore[operator]
    finally:
        forward.close()
    return f"{float(off.mean()):.1e} | {float(off.max()):.1e}"

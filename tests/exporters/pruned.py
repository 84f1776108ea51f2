"""Every topology of the surgery's tests after losing random units, exported and compared with PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from compressor.formats import Job
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.surgery.trace.edges import KIND, Edges
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import RandomTask, check_file, random_lengths
from exporters.onnx import Options, export
from tests.surgery.topologies import CELL_KINDS, CELLS, HIDDEN, INPUT, SUPPORTED, CellLoop, Streaming
from tests.tolerances import EXPORTED_FLOAT32

if TYPE_CHECKING:
    from pathlib import Path

TOPOLOGIES = [*SUPPORTED, Streaming, CellLoop]
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}
TRACED = ((2, 3), (5, 7))
"""(batch, length) at which the removal is checked."""
UNSEEN = ((1, 1), (1, 17), (4, 6), (7, 31))
"""(batch, length) that neither the removal nor the export sees; the last is longer than the task's longest."""
FIXED_LENGTH = 3
UNSEEN_BATCHES = ((4, FIXED_LENGTH), (7, FIXED_LENGTH))
"""The same where the length is fixed in the file."""


def pruned(topology: type[nn.Module], cell: str, seed: int = 0) -> tuple[nn.Module, RandomTask]:
    """A float32 model that lost a random half (or third, for odd seeds) of the units of each recurrent layer."""
    torch.manual_seed(seed)
    model = topology((CELL_KINDS if topology is CellLoop else CELLS)[cell]).eval()
    _randomise_normalisations(model)
    names = ["rnn"] if topology is CellLoop else list(recurrent_modules(model))
    states = 0 if topology is not Streaming else 2 if cell == "lstm" else 1
    result = prune(
        model,
        {},
        [_example(batch, length, states) for batch, length in TRACED],
        names=names,
        amount=Amount(ratio=(0.5, 0.34)[seed % 2]),
        scorer=lambda _, tracer: np.random.default_rng(seed).random(tracer.atoms.count),
    )
    edges = [Edges.from_record(record) for record in result.structure if record["kind"] == KIND]
    return result.model, _task(result.model, states, edges)


def check_exported(model: nn.Module, task: RandomTask, path: Path, sizes: tuple[tuple[int, int], ...] = UNSEEN) -> None:
    """Export with every check of the exporter's own, then compare at sizes that nothing has seen yet.

    Raises:
        ExportError: The exporter refuses.
        ParityError: The file is wrong, as the exporter finds or at one of `sizes`.
    """
    assert export(Job(model, task, path, Options())).parity.passed
    check_file(path, model, task, sizes, **EXPORTED_FLOAT32)


def without_time(task: RandomTask) -> RandomTask:
    """The same task with its length fixed in the file."""
    inputs = {name: {axis: word for axis, word in axes.items() if word != "time"} for name, axes in task.inputs.items()}
    return RandomTask(inputs, task.outputs, task.example, length=FIXED_LENGTH)


def _example(batch: int, length: int, states: int) -> tuple[torch.Tensor, ...]:
    given = (torch.randn(2, batch, HIDDEN) for _ in range(states))
    return torch.randn(batch, length, INPUT), random_lengths(batch, length), *given


def _task(model: nn.Module, states: int, edges: list[Edges]) -> RandomTask:
    """Inputs and outputs as a user would declare them, states cut to the kept units."""

    def example(batch: int, length: int) -> tuple[torch.Tensor, ...]:
        parts = _example(batch, length, states)
        for cuts in edges:
            parts = cuts.narrow(parts)
        return parts

    with torch.no_grad():
        outputs = model(*example(2, 3))
    first = outputs[0] if states else outputs
    names = [f"state_{index}" for index in range(states)]
    inputs = {"features": TIMED, "lengths": LAST} | {name: {1: "batch"} for name in names}
    outward = {"scores": TIMED if first.dim() == 3 else LAST} | {f"{name}_out": {1: "batch"} for name in names}
    return RandomTask(inputs, outward, example)


def _randomise_normalisations(model: nn.Module) -> None:
    """Fresh ones hold only zeros and ones, which would hide swapped features."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.uniform_(-0.5 if "bias" in name or "mean" in name else 0.5, 1.5)

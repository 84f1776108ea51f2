"""Gives a converted layer its start: features from the old layer's inputs, and the readout by least squares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from compressor.nn.converted.layer import in_turn
from compressor.nn.least_squares import RIDGES, Moments, Problem, choose_ridge
from compressor.training.layer_fitting import Stage, Student, error, inputs_of, run_stages, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.nn.converted.layer import SequenceLayer
    from compressor.progress import Progress
    from compressor.training.layer_fitting import Sample

_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, *RIDGES)
_MOST_INPUTS = 1 << 14
"""Positions that the statistics of the inputs are taken of."""


def start(
    layers: Sequence[SequenceLayer], samples: Sequence[Sample], drive: Tensor, generator: torch.Generator
) -> None:
    """Give layers that stand for one the values from which their training starts, in place.

    The features of the first come from the inputs and from how the old layer weighed them. Each hands its features on
    as they are, and the next mixes them at random. The readout of the last is the ridge regression of what the old
    layer gave on its features, from sums over the samples.

    Args:
        layers: The new layers, one on top of the other; all but the last give as many outputs as they have features.
        samples: Calls of the old one.
        drive: See `SequenceLayer.start`.
        generator: On the CPU.
    """
    for index, layer in enumerate(layers):
        if index:
            samples = [_handed_on(layers[index - 1], sample) for sample in samples]
            drive = torch.eye(layer.input_size)
        rows = inputs_of(samples)
        layer.start(rows[:: -(-len(rows) // _MOST_INPUTS)], drive, generator)
        if index < len(layers) - 1:
            nn.init.eye_(layer.readout.weight)
            nn.init.zeros_(layer.readout.bias)
    solve_readout(layers[-1], samples)


def _handed_on(layer: SequenceLayer, sample: Sample) -> Sample:
    with torch.no_grad():
        return replace(sample, x=layer(sample.x, sample.counts))


def solve_readout(layer: SequenceLayer, samples: Sequence[Sample]) -> None:
    """Set the readout of a layer to the ridge regression of the samples' targets on its features, in place."""
    inputs, outputs = layer.readout.in_features, layer.readout.out_features
    cpu = torch.device("cpu")  # not every accelerator has float64
    halves = (Moments(inputs, outputs, cpu), Moments(inputs, outputs, cpu))
    with torch.no_grad():
        for index, sample in enumerate(samples):
            counts = sample.counts[..., 0] > 0
            features = layer.features(sample.x, sample.counts)[counts].cpu().double()
            targets = sample.target[counts].cpu().double()
            if len(samples) == 1:  # halves of the only sample
                halves[0].add(features[::2], targets[::2])
                halves[1].add(features[1::2], targets[1::2])
            else:
                halves[index % 2].add(features, targets)
    problem = Problem(torch.arange(inputs), slice(0, outputs), constant=True)
    solution = (halves[0] + halves[1]).solve(problem, choose_ridge(halves, problem, _RIDGES))
    with torch.no_grad():
        layer.readout.weight.copy_(solution.weights)
        layer.readout.bias.copy_(solution.constant)


def teach(
    layers: Sequence[SequenceLayer],
    samples: Sequence[Sample],
    drive: Tensor,
    *,
    steps: int,
    lr: float,
    seed: int,
    quick: bool,
    progress: Progress,
    label: str,
) -> dict[str, float]:
    """Start layers that stand for one and train them by themselves to give what the old one gave, in place.

    Args:
        layers: In evaluation mode, one on top of the other.
        samples: Calls of the old layer; every fourth is held out to measure on.
        drive: See `SequenceLayer.start`.
        steps: Optimizer steps, one sample each; 0 leaves it at the start.
        lr: Highest learning rate.
        seed: Draws what the start draws, and chooses the samples.
        quick: A rehearsal.
        progress: Where progress is told.
        label: What it calls the layer.

    Returns:
        Stage -> error after it: squared distance to what the old layer gave, over its variance.
    """
    used, test = split(samples)
    start(layers, used, drive, torch.Generator().manual_seed(seed))
    module = nn.ModuleList(layers)
    names = tuple(name for name, _ in module.named_parameters())
    student = Student(module, names, lambda sample: in_turn(layers, sample.x, sample.counts) * sample.counts)
    errors = {"error at the start (least squares)": error(student, test)}
    stages = [Stage("error after distillation", names, steps, lr)] if steps else []
    return run_stages(
        student, samples, stages, errors, masks={}, seed=seed, quick=quick, progress=progress, label=label
    )

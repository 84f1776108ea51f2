"""Builds a stack of converted layers for a recurrent layer, layer by layer, each fitted to what the old one gave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.nn.converted.layer import SequenceLayer, in_turn
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.recurrent.layers import cell_of, directions
from compressor.nn.recurrent.replay import unroll
from compressor.training.layer_fitting import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.recurrent.replay import LayerRun
    from compressor.surgery.refit.calibration import Call

Build = Callable[[int, int, Tensor], list[SequenceLayer]]
"""(input size, output size, a tensor whose device and type the new weights have) -> layers with any weights, one on top
of the other, that stand for one."""
Teach = Callable[[str, list[SequenceLayer], "list[Sample]", Tensor], dict[str, float]]
"""(label, layers that stand for one, samples, drive of the old layer) -> errors by stage; they are fitted in place."""


@dataclass(frozen=True)
class Converted:
    """What replaces a recurrent layer."""

    module: ConvertedRecurrent
    errors: dict[str, float]
    """Stage -> error, `layers.1: ` in front if there are several layers."""


def convert(old: Any, seen: Sequence[Call], build: Build, teach: Teach) -> Converted:
    """A stack that gives about what `old` gives, which is left as it is.

    Each layer learns on what the layers converted before it give, so that it makes up for their errors, and towards
    what the old stack gave at its place.

    Args:
        old: The recurrent layer, of PyTorch or an `UnevenRecurrent`.
        seen: Its calls on the calibration batches.
        build: Makes a layer.
        teach: Fits it.
    """
    samples, drives = samples_of(old, seen)
    groups: list[list[SequenceLayer]] = []
    errors: dict[str, float] = {}
    used: list[Sample] = []
    for index, drive in enumerate(drives):
        own = samples[index]
        if groups:
            own = [_moved_on(groups[-1], before, sample) for before, sample in zip(used, own, strict=True)]
        group = build(own[0].x.shape[-1], own[0].target.shape[-1], own[0].x)
        label = f"layers.{index}" if len(drives) > 1 else ""
        prefix = f"{label}: " if label else ""
        errors |= {f"{prefix}{stage}": value for stage, value in teach(label, group, own, drive).items()}
        groups.append(group)
        used = own
    module = ConvertedRecurrent(
        [layer for group in groups for layer in group],
        batch_first=old.batch_first,
        bidirectional=old.bidirectional,
        has_cell_state=len(cell_of(old).states) > 1,
        dropout=old.dropout,
        depth=len(groups[0]),
    )
    return Converted(module, errors)


def _moved_on(group: Sequence[SequenceLayer], before: Sample, sample: Sample) -> Sample:
    """The sample of the next layer, reading what the converted ones give."""
    with torch.no_grad():
        return Sample(in_turn(group, before.x, before.counts), {}, sample.target, sample.counts)


def samples_of(old: Any, seen: Sequence[Call]) -> tuple[list[list[Sample]], list[Tensor]]:
    """For every layer of `old` its calls, and how it weighs its inputs (G, I), the directions one above the other."""
    samples: dict[int, list[Sample]] = defaultdict(list)
    drives: dict[int, Tensor] = {}
    with torch.no_grad():
        for call in seen:
            for layer, group in groupby(unroll(old, *call.arguments.values()), lambda run: run.part.layer):
                runs = list(group)
                samples[layer].append(_sample(runs))
                drives[layer] = torch.cat([run.weights["weight_ih"].detach() for run in runs])
    layers = range(old.num_layers)
    assert all(len(samples[layer]) == len(seen) for layer in layers)
    assert directions(old) in (1, 2)
    return [samples[layer] for layer in layers], [drives[layer] for layer in layers]


def _sample(runs: Sequence[LayerRun]) -> Sample:
    """One call of one layer: what it read and gave, (B, T, F), the directions side by side."""
    first = runs[0]
    target = torch.cat([run.forward_outputs for run in runs], -1).transpose(0, 1)
    counts = first.valid.T.unsqueeze(-1).to(target.dtype)  # (B, T, 1)
    return Sample(first.sequence.transpose(0, 1) * counts, {}, target * counts, counts)

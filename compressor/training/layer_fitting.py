"""Fits a layer to the outputs of the one that it replaces, by gradients, on calls of that one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.training.trainer import Trainer, lr_factor, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compressor.progress import Bar, Progress

_WARMUP = 0.1
"""Fraction of the steps during which the learning rate rises."""
_HELD_OUT = 4
"""One in so many calibration batches is held out, to measure on."""
_QUICK_STEPS = 3
"""Optimizer steps of a rehearsal."""


@dataclass(frozen=True)
class Sample:
    """One call of the layer that is replaced, in its own order of axes."""

    x: Tensor
    """What the layer reads."""
    call: Mapping[str, Any]
    """The arguments, by name."""
    target: Tensor
    """What it gave."""
    counts: Tensor
    """(..., 1): 1 at positions that count, 0 at padded ones."""


@dataclass(frozen=True)
class Student:
    """What learns to give what another layer gave."""

    module: nn.Module
    """Holds its parameters."""
    names: tuple[str, ...]
    """Names in it of all parameters that are of the layer."""
    forward: Callable[[Sample], Tensor]
    """Its output for a sample, of the form of `target`."""


@dataclass(frozen=True)
class Stage:
    """One of several in which a student learns."""

    title: str
    """Of the error after it, in the report."""
    names: tuple[str, ...]
    """Parameters that are trained."""
    steps: int
    """Optimizer steps, one sample each."""
    lr: float
    """Highest learning rate."""


def inputs_of(samples: Sequence[Sample]) -> Tensor:
    """What the layer reads at all positions that count (N, I)."""
    return torch.cat([sample.x[sample.counts[..., 0] > 0] for sample in samples])


def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Those that are fitted on, and those that errors are measured on: every fourth, or all if there are too few."""
    held_out = [sample for index, sample in enumerate(samples) if index % _HELD_OUT == _HELD_OUT - 1]
    used = [sample for index, sample in enumerate(samples) if index % _HELD_OUT != _HELD_OUT - 1]
    return used, held_out or used


def run_stages(
    student: Student,
    samples: Sequence[Sample],
    stages: Sequence[Stage],
    errors: Mapping[str, float],
    *,
    masks: Mapping[str, Tensor],
    seed: int,
    quick: bool,
    progress: Progress,
    label: str,
) -> dict[str, float]:
    """Train a student stage by stage, in place; a stage that makes it worse is undone.

    Args:
        student: The layer, in evaluation mode.
        samples: Calls of the original; `split` says which are used for what.
        stages: In order.
        errors: Title -> `error` so far.
        masks: Parameter name -> boolean mask; what is False stays zero.
        seed: Chooses the samples of each stage.
        quick: A rehearsal.
        progress: Where progress is told.
        label: What it calls the layer.

    Returns:
        `errors`, with those after each stage.
    """
    used, test = split(samples)
    errors = dict(errors)
    best = min(errors.values())
    for stage in stages:
        generator = torch.Generator().manual_seed(seed)
        before = copy.deepcopy(student.module.state_dict())
        total = min(stage.steps, _QUICK_STEPS) if quick else stage.steps
        with progress.bar(f"fitting {label}", total) as bar:
            fit(
                student,
                stage.names,
                used,
                steps=total,
                lr=stage.lr,
                masks=masks,
                generator=generator,
                report=_reporter(bar),
            )
        errors[stage.title] = error(student, test)
        if not errors[stage.title] <= best:
            student.module.load_state_dict(before)
        best = min(best, errors[stage.title])
    student.module.zero_grad(set_to_none=True)
    return errors


def error(student: Student, samples: Sequence[Sample]) -> float:
    """Squared distance to what the original gave, over the variance of that: 0 is the same, 1 is a constant's."""
    distance = torch.stack([_distance(student, sample) for sample in samples]).sum()
    return float(distance / _variance(samples))


def fit(
    student: Student,
    names: Sequence[str],
    samples: Sequence[Sample],
    *,
    steps: int,
    lr: float,
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
    report: Callable[[int, float], None],
) -> None:
    """Adam steps on these parameters that bring `error` down, a sample at a time, in place.

    Args:
        student: The layer.
        names: Its parameters that are trained.
        samples: What it learns from.
        steps: How many.
        lr: Highest learning rate; rises over the first tenth of the steps and falls along a half cosine.
        masks: Parameter name -> boolean mask; what is False stays zero.
        generator: Chooses the samples, on the CPU.
        report: Called now and then with the number of steps since the last call and the latest error.

    Raises:
        MethodError: It broke down; `lr` is too high.
    """
    scale = len(samples) / _variance(samples)
    parameters: dict[str, nn.Parameter] = {name: student.module.get_parameter(name) for name in names}
    optimizer = make_optimizer("adam", list(parameters.values()), lr=lr, weight_decay=0.0, momentum=0.0)
    trainer = Trainer(
        parameters,
        optimizer,
        masks=masks,
        clip=5.0,
        lr_at=lambda step: lr * lr_factor(step, steps, "cosine", _WARMUP),
    )
    chosen = islice(_shuffled(samples, generator), steps)
    with torch.enable_grad():
        trainer.epoch(chosen, lambda sample: _distance(student, sample, gradients=True) * scale, report, number=1)


def _shuffled(samples: Sequence[Sample], generator: torch.Generator) -> Iterator[Sample]:
    """All samples in a new order, again and again."""
    while True:
        for index in torch.randperm(len(samples), generator=generator).tolist():
            yield samples[index]


def _distance(student: Student, sample: Sample, *, gradients: bool = False) -> Tensor:
    """Sum of squares over the positions that count."""
    with torch.set_grad_enabled(gradients):
        squares: Tensor = (student.forward(sample) - sample.target).square() * sample.counts
        return squares.sum()


def _variance(samples: Sequence[Sample]) -> float:
    """Sum of squares of the targets' distances from their mean, over the positions that count."""
    flat = torch.cat([sample.target.flatten(0, -2) for sample in samples]).double()
    counts = torch.cat([sample.counts.flatten(0, -2) for sample in samples]).double()
    mean = (flat * counts).sum(0) / counts.sum()
    return max(float(((flat - mean).square() * counts).sum()), torch.finfo(torch.float32).tiny)


def _reporter(bar: Bar) -> Callable[[int, float], None]:
    return lambda done, latest: bar.advance(done, note=f"error {latest:.3g}")

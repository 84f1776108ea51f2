"""Gives an Aaren its query, and fits it to the outputs of the attention that it replaces."""

from __future__ import annotations

import copy
import math
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
_QUERY_STEPS = 200
_QUERY_LR = 0.03
"""Relative to the size of the layer's inputs, from whose mean the query starts."""


@dataclass(frozen=True)
class Sample:
    """One call of the attention, in the layer's own order of axes."""

    x: Tensor
    """What queries, keys and values are made of."""
    call: Mapping[str, Any]
    """The arguments, by name."""
    target: Tensor
    """What it gave."""
    counts: Tensor
    """(..., 1): 1 at positions that count, 0 at padded ones."""


@dataclass(frozen=True)
class Student:
    """What learns to give what an attention gave."""

    module: nn.Module
    """Holds its parameters."""
    query: str
    """Name in it of the learned query."""
    names: tuple[str, ...]
    """Names in it of all parameters of the attention, the query included."""
    forward: Callable[[Sample], Tensor]
    """Its output for a sample, of the form of `target`."""


@dataclass(frozen=True)
class Schedule:
    """How a student is taught."""

    fit_query: bool
    """Fit the query by itself first."""
    steps: int
    """Optimizer steps in which all of the layer learns; 0 leaves it at the query."""
    lr: float
    """Highest learning rate of these."""
    quick: bool = False
    """A rehearsal."""


def teach(
    student: Student,
    samples: Sequence[Sample],
    schedule: Schedule,
    *,
    masks: Mapping[str, Tensor],
    seed: int,
    progress: Progress,
    label: str,
) -> dict[str, float]:
    """Give the layer its query and train it to give what the original gave, in place.

    Errors are measured on samples that nothing was fitted on, if there are enough of them. A stage that makes the layer
    worse is undone.

    Args:
        student: The layer, in evaluation mode.
        samples: Calls of the original.
        schedule: How.
        masks: Parameter name -> boolean mask; what is False stays zero.
        seed: Chooses the samples of each stage.
        progress: Where progress is told.
        label: What it calls the layer.

    Returns:
        Stage -> `error` after it.
    """
    held_out = [sample for index, sample in enumerate(samples) if index % _HELD_OUT == _HELD_OUT - 1]
    used = [sample for index, sample in enumerate(samples) if index % _HELD_OUT != _HELD_OUT - 1]
    test = held_out or used
    set_mean_query(student, used)
    errors = {"error with the mean query": error(student, test)}
    stages: list[tuple[str, list[str], int, float]] = []
    if schedule.fit_query:
        stages.append(("error with the fitted query", [student.query], _QUERY_STEPS, _QUERY_LR * _scale(used)))
    if schedule.steps:
        trained = [key for key in student.names if student.module.get_parameter(key).requires_grad]
        stages.append(("error after distillation", trained, schedule.steps, schedule.lr))
    best = min(errors.values())
    for title, names, steps, lr in stages:
        generator = torch.Generator().manual_seed(seed)
        before = copy.deepcopy(student.module.state_dict())
        total = min(steps, _QUICK_STEPS) if schedule.quick else steps
        with progress.bar(f"fitting {label}", total) as bar:
            fit(
                student,
                names,
                used,
                steps=total,
                lr=lr,
                masks=masks,
                generator=generator,
                report=_reporter(bar),
            )
        errors[title] = error(student, test)
        if errors[title] > best:
            student.module.load_state_dict(before)
        best = min(best, errors[title])
    student.module.zero_grad(set_to_none=True)
    return errors


def error(student: Student, samples: Sequence[Sample]) -> float:
    """Squared distance to what the attention gave, over the variance of that: 0 is the same, 1 is a constant's."""
    distance = torch.stack([_distance(student, sample) for sample in samples]).sum()
    return float(distance / _variance(samples))


def set_mean_query(student: Student, samples: Sequence[Sample]) -> None:
    """Let the query be the mean input, so that what `q_proj` makes of it is the mean of the attention's queries."""
    total = torch.stack([(sample.x * sample.counts).flatten(0, -2).sum(0) for sample in samples]).sum(0)
    count = torch.stack([sample.counts.sum() for sample in samples]).sum()
    with torch.no_grad():
        student.module.get_parameter(student.query).copy_(total / count)


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


def _scale(samples: Sequence[Sample]) -> float:
    """Root mean square of the inputs."""
    total = sum(float((sample.x * sample.counts).square().sum()) for sample in samples)
    count = sum(float(sample.counts.sum()) * sample.x.shape[-1] for sample in samples)
    return math.sqrt(total / max(count, 1.0))

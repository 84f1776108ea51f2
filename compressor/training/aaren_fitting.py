"""Give an Aaren its query, and let it learn to give what the attention in whose place it stands gave."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.training.trainer import Trainer, lr_factor, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_WARMUP = 0.1
"""Fraction of the steps during which the learning rate rises."""


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

"""Gives an Aaren its query, and fits it to the outputs of the attention that it replaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compressor.training.layer_fitting import Sample, Stage, Student, error, run_stages, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from compressor.progress import Progress

_QUERY_STEPS = 200
_QUERY_LR = 0.03
"""Relative to the size of the layer's inputs, from whose mean the query starts."""


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
    query: str,
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
        query: Name of the learned query among its parameters.
        samples: Calls of the original.
        schedule: How.
        masks: Parameter name -> boolean mask; what is False stays zero.
        seed: Chooses the samples of each stage.
        progress: Where progress is told.
        label: What it calls the layer.

    Returns:
        Stage -> `error` after it.
    """
    used, test = split(samples)
    set_mean_query(student, query, used)
    stages = []
    if schedule.fit_query:
        lr = _QUERY_LR * _scale(used)
        stages.append(Stage("error with the fitted query", (query,), _QUERY_STEPS, lr))
    if schedule.steps:
        trained = tuple(key for key in student.names if student.module.get_parameter(key).requires_grad)
        stages.append(Stage("error after distillation", trained, schedule.steps, schedule.lr))
    return run_stages(
        student,
        samples,
        stages,
        {"error with the mean query": error(student, test)},
        masks=masks,
        seed=seed,
        quick=schedule.quick,
        progress=progress,
        label=label,
    )


def set_mean_query(student: Student, query: str, samples: Sequence[Sample]) -> None:
    """Let the query be the mean input, so that what `q_proj` makes of it is the mean of the attention's queries."""
    total = torch.stack([(sample.x * sample.counts).flatten(0, -2).sum(0) for sample in samples]).sum(0)
    count = torch.stack([sample.counts.sum() for sample in samples]).sum()
    with torch.no_grad():
        student.module.get_parameter(query).copy_(total / count)


def _scale(samples: Sequence[Sample]) -> float:
    """Root mean square of the inputs."""
    total = sum(float((sample.x * sample.counts).square().sum()) for sample in samples)
    count = sum(float(sample.counts.sum()) * sample.x.shape[-1] for sample in samples)
    return math.sqrt(total / max(count, 1.0))

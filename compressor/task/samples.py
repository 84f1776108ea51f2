"""A few inputs of a task's own data, beside those that its `example` makes up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from compressor.task.axes import TIME
from compressor.task.fixed_axes import dynamic
from compressor.task.view import adapted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compressor.task.contract import Inputs, Task

FEW = 4
"""Samples that are kept of a batch."""


@dataclass(frozen=True)
class Sample:
    """Inputs of one call of the model."""

    origin: Literal["batches", "evaluate"]
    """The function of the task that gave them."""
    inputs: Inputs


def few(task: Task, inputs: Inputs) -> Inputs:
    """The first samples of a batch, by the axes that the task calls `batch`."""
    found = []
    for part, axes in zip(inputs, task.inputs.values(), strict=True):
        for axis, word in axes.items():
            if word == "batch":
                part = part.narrow(axis, 0, min(FEW, part.shape[axis]))  # noqa: PLW2901
        found.append(part.detach().cpu().clone())
    return tuple(found)


def given(task: Task, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The same as the model of `task` takes them: states narrowed, or those inputs that one of its modules gets."""
    return tuple(replace(sample, inputs=adapted(task, sample.inputs)) for sample in samples)


def size(task: Task, inputs: Inputs, word: str) -> int:
    """The size of the axis that the task calls `word`, also if a file fixes it.

    If there is none: 1, and for `time` the length at which a model without it is called.
    """
    for part, axes in zip(inputs, dynamic(task).inputs.values(), strict=True):
        for axis, name in axes.items():
            if name == word:
                return int(part.shape[axis])
    return task.length if word == TIME else 1


def fitting(task: Task, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Those of the lengths that the task promises; a file for one length takes no other."""
    timed = any(word == "time" for axes in dynamic(task).inputs.values() for word in axes.values())
    return tuple(
        sample
        for sample in samples
        if not timed or task.min_length <= size(task, sample.inputs, "time") <= task.max_length
    )

"""The sizes that a task's `example` takes: batch size, length, and what further axes its model has.

A further open axis (the length of a target, the width of a picture) is a further argument of `example` with a typical
size as its default: `example(self, batch, length, target_length=5)`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from compressor.errors import TaskError
from compressor.task.axes import BATCH, TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compressor.task.contract import Inputs, Task

    Ranges = Mapping[str, tuple[int, int]]

_BATCHES = (2, 3)
"""Batch sizes at which a model is called; 1 would be taken for an axis that can be left out."""


def further_sizes(example: Callable[..., Any]) -> dict[str, int]:
    """Name of each further size that `example` takes -> its default."""
    parameters = list(inspect.signature(example).parameters.values())[2:]
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if type(parameter.default) is int and parameter.default > 0
    }


def first_sizes(task: Task, further: Mapping[str, int]) -> dict[str, int]:
    """The sizes at which a model is called first."""
    return {BATCH: _BATCHES[0], TIME: task.length, **further}


def other_sizes(task: Task, further: Mapping[str, int], declared: Ranges) -> dict[str, int]:
    """A second size of every axis that has one; a shorter length if there is one."""
    others = {BATCH: _BATCHES[1]}
    if task.min_length < task.max_length:
        shorter = max(task.min_length, task.length // 2)
        others[TIME] = shorter if shorter != task.length else task.length + 1
    for name, size in further.items():
        _, largest = declared.get(name, (1, size + 1))
        others[name] = size + 1 if size < largest else size - 1
    return others


def check_ranges(declared: Any, further: Mapping[str, int]) -> None:
    """Hold `Task.ranges` against the arguments of `example`.

    Raises:
        TaskError: It is no mapping to pairs, names something that `example` does not take, or leaves its default out.
    """
    hint = 'such as `ranges = {"width": (8, 64)}` beside `example(self, batch, length, width=20)`'
    if not hasattr(declared, "items"):
        raise TaskError("`ranges` must map the name of a size to its smallest and largest value", hint=hint)
    for name, bounds in declared.items():
        if name not in further:
            raise TaskError(f"`ranges` names `{name}`, which `example` does not take as a further size", hint=hint)
        pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(type(bound) is int for bound in bounds)
        if not pair or not 1 <= bounds[0] <= further[name] <= bounds[1] or bounds[0] == bounds[1]:
            raise TaskError(
                f"`ranges` gives {bounds!r} for `{name}`, whose default in `example` is {further[name]}",
                hint=f"give the smallest and the largest size, {further[name]} among them",
            )
    for word in (BATCH, TIME):
        if word in further:
            raise TaskError(f"`example` calls a further size `{word}`", hint="that is the name of one of the first two")


def example_at(task: Task, batch: int, length: int, further: Mapping[str, int]) -> Inputs:
    """The task's example at these sizes; further sizes that are not given have their defaults."""
    example: Callable[..., Inputs] = task.example
    return example(batch, length, **further)


def written(sizes: Mapping[str, int]) -> str:
    """The call of `example` with these sizes."""
    further = "".join(f", {name}={size}" for name, size in sizes.items() if name not in (BATCH, TIME))
    return f"example({sizes[BATCH]}, {sizes[TIME]}{further})"

"""Refuses lengths at which the model cannot run in this machine's memory, before anything of that size is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.nn.operations import Operations
from compressor.pipeline.trial.results import problem
from compressor.runtimes import resources
from compressor.task.axes import BATCH, TIME
from compressor.task.sizes import example_at, first_sizes, further_sizes, other_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from compressor.task.guard import GuardedTask

_BATCH = 3
"""Samples at the longest length when a file is compared."""
_STEEPEST = 3.0
"""Largest power of a size that memory is taken to grow with: attention over pairs is 2."""


def refuse_too_large(task: GuardedTask, model: nn.Module, device: torch.device) -> None:
    """Measure the largest tensor at two sizes of each open axis, and follow its growth to the end of the range."""
    ranges = dict(task.ranges)
    if any(TIME in axes.values() for axes in task.inputs.values()):
        ranges[TIME] = task.min_length, task.max_length
    further = {name: size for name, size in further_sizes(task.task.example).items() if name in ranges}
    first = first_sizes(task, further)
    others = other_sizes(task, further, task.declared_ranges)
    base = _largest(task, model, device, first)
    for name, (_, end) in ranges.items():
        if name not in others or end <= max(first[name], others[name]):
            continue
        second = {**first, name: others[name]}
        power = _power(base, _largest(task, model, device, second), first[name], others[name])
        expected = base * _BATCH / first[BATCH] * (end / first[name]) ** power
        memory = resources.memory()
        if expected > memory:
            fits = int(first[name] * (memory / (base * _BATCH / first[BATCH])) ** (1 / power))
            limit = "`max_length`" if name == TIME else f"`ranges` of `{name}`"
            raise problem(
                task,
                f"at {limit} {end} one tensor of the model takes about {resources.gib(expected)}, of "
                f"{resources.gib(memory)} of memory",
                f"files are compared there: give the longest in use, at most about {_rounded(fits)} here",
            )


def _power(one: int, other: int, size: int, second: int) -> float:
    """The power of the size with which memory grows, at least 0."""
    if one <= 0 or other <= 0 or size == second:
        return 0.0
    return min(_STEEPEST, max(0.0, math.log(other / one) / math.log(second / size)))


def _largest(task: GuardedTask, model: nn.Module, device: torch.device, sizes: Mapping[str, int]) -> int:
    """Bytes of the largest tensor that the model takes or makes at these sizes."""
    further = {name: size for name, size in sizes.items() if name not in (BATCH, TIME)}
    inputs = example_at(task, sizes[BATCH], sizes[TIME], further)
    watch = _Allocations(model)
    with torch.no_grad(), watch:
        model(*(part.to(device) for part in inputs))
    return max([watch.largest, *(part.numel() * part.element_size() for part in inputs)])


class _Allocations(Operations):
    """Notes the largest tensor that an operation makes; views of the model's weights are none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        kept = (*model.parameters(), *model.buffers())
        self._kept = {part.untyped_storage().data_ptr() for part in kept}
        self.largest = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for part in pytree.tree_leaves(results):
            if isinstance(part, Tensor) and part.untyped_storage().data_ptr() not in self._kept:
                self.largest = max(self.largest, part.untyped_storage().nbytes())
        return results


def _rounded(number: int) -> int:
    """With two digits."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return number // step * step

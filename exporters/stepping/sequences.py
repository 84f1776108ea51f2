"""The task as a stream sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.task.sizes import example_at
from compressor.task.view import TaskView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.report import StreamInput
    from compressor.task.contract import Task


class Sequences(TaskView):
    """The task as a stream sees it: sequences without padding, and longer ones than the task itself gives."""

    def __init__(self, task: Task, inputs: tuple[StreamInput, ...], generator: torch.Generator | None = None) -> None:
        """For `task`, whose inputs are described by `inputs`; a generator varies those that have no axis of time."""
        super().__init__(task)
        self._described = inputs
        self._generator = generator

    def example(self, batch: int, length: int, **further: int) -> tuple[Tensor, ...]:
        """Inputs; if the length is more than the task's longest, several examples one behind the other."""
        missing = length
        parts = []
        while missing > 0:
            part = min(max(missing, self.min_length), self.max_length)
            parts.append(example_at(self.task, batch, part, further))
            missing -= part
        return tuple(
            self._joined(item, pieces, batch, length)
            for item, pieces in zip(self._described, zip(*parts, strict=True), strict=True)
        )

    def _joined(self, item: StreamInput, pieces: Sequence[Tensor], batch: int, length: int) -> Tensor:
        first = pieces[0]
        if item.lengths:
            return torch.full_like(first, length)
        if item.time_axis is not None:
            return torch.cat(list(pieces), item.time_axis).narrow(item.time_axis, 0, length)
        if self._generator is not None and first.is_floating_point():
            return torch.randn(first.shape, generator=self._generator, dtype=first.dtype)
        return first

"""A task as an exported file with fixed axes, or with inputs in half precision, wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.errors import UsageError
from compressor.task.guard import GuardedTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.task.contract import Inputs, Task


def fit(task: GuardedTask, shapes: Mapping[str, int], *, half: bool) -> GuardedTask:
    """The task for a file with fixed shapes or half-precision inputs; `task` itself for any other file."""
    return FittedTask(task, shapes, half=half) if shapes or half else task


def whole(task: Task) -> Task:
    """The task of the dynamic file; `task` itself where it is not a fitted one."""
    return task.whole if isinstance(task, FittedTask) else task


class FittedTask(GuardedTask):
    """Gives examples that the file takes; `compressor.runtimes.forward.Fixed` calls it as often as a batch needs."""

    def __init__(self, task: Task, shapes: Mapping[str, int], *, half: bool = False) -> None:
        """Narrow a task.

        Args:
            task: The task of the dynamic file.
            shapes: Name of a dynamic axis -> the size that the file fixes it to.
            half: The file takes and gives float16 where the model has float32.

        Raises:
            UsageError: An axis is unknown, or its size outside the task's range.
        """
        super().__init__(task, getattr(task, "file", ""))
        self.whole, self.shapes, self._half = task, dict(shapes), half
        known = {name for axes in (*task.inputs.values(), *task.outputs.values()) for name in axes.values()}
        unknown = sorted(set(shapes) - known)
        if unknown:
            raise UsageError(
                f"`shapes` fixes `{unknown[0]}`, but the task's dynamic axes are {', '.join(sorted(known)) or 'none'}",
                hint="use the names in the task's `inputs`",
            )
        time = shapes.get("time")
        if time is not None:
            if not task.min_length <= time <= task.max_length:
                lengths = f"{task.min_length} to {task.max_length}"
                raise UsageError(
                    f"`shapes` fixes `time` to {time}, but the task's lengths are {lengths}",
                    hint="choose a length in that range, or widen min_length and max_length of the task",
                )
            self.length = self.min_length = self.max_length = time
        self.inputs, self.outputs = self._open(task.inputs), self._open(task.outputs)

    def _open(self, named: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
        """The axes that stay dynamic."""
        return {
            name: {axis: word for axis, word in axes.items() if word not in self.shapes} for name, axes in named.items()
        }

    def example(self, batch: int, length: int) -> Inputs:
        """The task's example at the fixed sizes; float32, which `forward` casts where it has to."""
        return self.whole.example(self.shapes.get("batch", batch), self.shapes.get("time", length))

    def given(self, inputs: Inputs) -> Inputs:
        """`inputs` in the precision that the file takes."""
        return tuple(part.half() if self._half and part.dtype == torch.float32 else part for part in inputs)

    @property
    def validates_on_evaluation_data(self) -> bool:
        """That of the task of the dynamic file."""
        return bool(getattr(self.whole, "validates_on_evaluation_data", True))

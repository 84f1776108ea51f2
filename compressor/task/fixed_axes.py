"""The task of a file that fixes the size of some axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.task.sizes import example_at
from compressor.task.view import TaskView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.task.contract import Inputs, Task


def fixed(task: Task, sizes: Mapping[str, int]) -> Task:
    """The task of a file whose axes have these sizes; `task` itself if there are none."""
    return FixedAxes(task, sizes) if sizes else task


def dynamic(task: Task) -> Task:
    """The task of the dynamic file; `task` itself if no axis is fixed."""
    return task.task if isinstance(task, FixedAxes) else task


class FixedAxes(TaskView):
    """Examples have the sizes of the file; its `evaluate` gives any size, see `compressor.runtimes.forward.Fixed`."""

    def __init__(self, task: Task, sizes: Mapping[str, int]) -> None:
        """Fix axes of a task.

        Args:
            task: The task of the dynamic file.
            sizes: Name of a dynamic axis -> the size that the file fixes it to.

        Raises:
            UsageError: An axis is unknown, or its size outside the task's range.
        """
        super().__init__(task)
        self.sizes = dict(sizes)
        _check(task, sizes)
        time = sizes.get("time")
        if time is not None:
            self.length = self.min_length = self.max_length = time
        self.inputs, self.outputs = self._open(task.inputs), self._open(task.outputs)
        self.ranges = {name: bounds for name, bounds in task.ranges.items() if name not in sizes}

    def _open(self, named: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
        """The axes that stay dynamic."""
        return {
            name: {axis: word for axis, word in axes.items() if word not in self.sizes} for name, axes in named.items()
        }

    def example(self, batch: int, length: int, **further: int) -> Inputs:
        """The task's example at the fixed sizes."""
        sizes = further | {name: self.sizes[name] for name in self.task.ranges if name in self.sizes}
        return example_at(self.task, self.sizes.get("batch", batch), self.sizes.get("time", length), sizes)


def _names(task: Task) -> set[str]:
    """The open axes of a task; if it is one module of a model, those of the whole model too."""
    own = {name for axes in (*task.inputs.values(), *task.outputs.values()) for name in axes.values()}
    return own | _names(task.task) if isinstance(task, TaskView) else own


def _check(task: Task, sizes: Mapping[str, int]) -> None:
    known = _names(task)
    unknown = sorted(set(sizes) - known)
    if unknown:
        raise UsageError(
            f"`shapes` fixes `{unknown[0]}`, but the task's dynamic axes are {', '.join(sorted(known)) or 'none'}",
            hint="use the names in the task's `inputs`",
        )
    time = sizes.get("time")
    if time is not None and not task.min_length <= time <= task.max_length:
        raise UsageError(
            f"`shapes` fixes `time` to {time}, but the task's lengths are {task.min_length} to {task.max_length}",
            hint="choose a length in that range, or widen min_length and max_length of the task",
        )
    for name, (smallest, largest) in task.ranges.items():
        if not smallest <= sizes.get(name, smallest) <= largest:
            raise UsageError(
                f"`shapes` fixes `{name}` to {sizes[name]}, but the task's sizes are {smallest} to {largest}",
                hint="choose one in that range, or widen `ranges` of the task",
            )

"""A task as an exported file with fixed axes, or with inputs in half precision, wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.task import GuardedTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.task import Evaluation, Forward, Inputs, Task


def fit(task: GuardedTask, options: Any) -> GuardedTask:
    """The task for a file that was exported with these options; `task` itself where they ask for nothing special."""
    shapes, half = getattr(options, "shapes", {}), not getattr(options, "float_io", True)
    return FittedTask(task, shapes, half=half) if shapes or half else task


class FittedTask(GuardedTask):
    """Gives examples that the file takes, and calls it as often as a larger batch needs.

    A batch that is no multiple of the file's is filled up with copies of its last sample, whose outputs are dropped.
    """

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
        self._whole, self._shapes, self._half = task, dict(shapes), half
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

    @property
    def whole(self) -> Task:
        """The task of the dynamic file."""
        return self._whole

    def _open(self, named: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
        """The axes that stay dynamic."""
        return {
            name: {axis: word for axis, word in axes.items() if word not in self._shapes}
            for name, axes in named.items()
        }

    def example(self, batch: int, length: int) -> Inputs:
        """The task's example at the fixed sizes; float32, which `forward` casts where it has to."""
        return self._whole.example(self._shapes.get("batch", batch), self._shapes.get("time", length))

    def given(self, inputs: Inputs) -> Inputs:
        """`inputs` in the precision that the file takes."""
        return tuple(part.half() if self._half and part.dtype == torch.float32 else part for part in inputs)

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`."""
        return self._whole.evaluate(self.fitted(forward))

    def fitted(self, forward: Forward) -> Forward:
        """The file behind the call of the dynamic one."""

        def run(*inputs: Tensor) -> Any:
            size = self._shapes.get("batch")
            batches = [axis for axes in self._whole.inputs.values() for axis, word in axes.items() if word == "batch"]
            if size is None or not batches:
                return self._joined([self._floats(forward(*self.given(inputs)))], None)
            count = self._batch(inputs)
            pieces = []
            for start in range(0, count, size):
                rows = torch.arange(start, start + size).clamp(max=count - 1)
                own = self._rows(inputs, self._whole.inputs, rows)
                pieces.append(self._floats(forward(*self.given(own))))
            return self._joined(pieces, count)

        return run

    def _batch(self, inputs: Inputs) -> int:
        return next(
            part.shape[axis]
            for part, axes in zip(inputs, self._whole.inputs.values(), strict=True)
            for axis, word in axes.items()
            if word == "batch"
        )

    @staticmethod
    def _rows(parts: Inputs, named: Mapping[str, Mapping[int, str]], rows: Tensor) -> Inputs:
        """Some samples of each tensor that has an axis of them."""
        found = []
        for part, axes in zip(parts, named.values(), strict=True):
            axis = next((axis for axis, word in axes.items() if word == "batch"), None)
            found.append(part if axis is None else part.index_select(axis, rows))
        return tuple(found)

    def _floats(self, outputs: Any) -> Inputs:
        flat = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        return tuple(part.float() if self._half and part.dtype == torch.float16 else part for part in flat)

    def _joined(self, pieces: list[Inputs], count: int | None) -> Any:
        """The outputs for all samples; those without an axis of samples as the last call gave them."""
        if count is None:
            joined = pieces[0]
        else:
            joined = ()
            for index, axes in enumerate(self._whole.outputs.values()):
                axis = next((axis for axis, word in axes.items() if word == "batch"), None)
                parts = [piece[index] for piece in pieces]
                joined += (parts[-1] if axis is None else torch.cat(parts, axis).narrow(axis, 0, count),)
        return joined[0] if len(joined) == 1 else joined

"""A task seen another way: views nest, and what a view does not change is the task's own.

`GuardedTask` checks what the user's code gives, `NarrowedStates` cuts the states that a compressed model takes,
`FixedAxes` gives axes one size, and exporters add their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.task.contract import Task
from compressor.task.forwards import AdaptedForward
from compressor.task.sizes import example_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch
    from torch import Tensor, nn

    from compressor.task.contract import Evaluation, Forward, Inputs, Outputs

    Batch = tuple[Inputs, Any]

ATTRIBUTES = (
    "metric",
    "higher_is_better",
    "remark",
    "inputs",
    "outputs",
    "length",
    "min_length",
    "max_length",
    "ranges",
    "attention",
)
"""What a task says of itself, beside its functions."""


class TaskView(Task):
    """A task with other inputs: a subclass overrides `adapt`, `example` or the attributes."""

    def __init__(self, task: Task) -> None:
        """Show `task`."""
        self.task = task
        for name in ATTRIBUTES:
            setattr(self, name, getattr(task, name))

    def adapt(self, inputs: Inputs) -> Inputs:
        """The inputs that the model takes, from those that the task gives: the same."""
        return inputs

    def model(self) -> nn.Module:
        """The task's `model`."""
        return self.task.model()

    def example(self, batch: int, length: int, **further: int) -> Inputs:
        """The task's `example`, adapted."""
        return self.adapt(example_at(self.task, batch, length, further))

    def batches(self, generator: torch.Generator) -> Iterable[Batch]:
        """The task's `batches`, their inputs adapted."""
        return ViewedBatches(self.task.batches(generator), self._adapted)

    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The task's `loss`."""
        return self.task.loss(outputs, target)

    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `evaluate`; the inputs that it calls `forward` with are adapted."""
        return self.task.evaluate(AdaptedForward(forward, self.adapt))

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The task's `validate`, in the same way."""
        return self.task.validate(AdaptedForward(forward, self.adapt))

    def _adapted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return ((self.adapt(inputs), target) for inputs, target in batches)


class ViewedBatches:
    """Batches seen through a function; their `len` works if that of the task's does, so that bars show what remains."""

    def __init__(self, batches: Iterable[Batch], view: Callable[[Iterable[Batch]], Iterator[Batch]]) -> None:
        """Show `batches` as `view` gives them."""
        self._batches: Any = batches
        self._view = view

    def __iter__(self) -> Iterator[Batch]:
        return self._view(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def adapted(task: Task, inputs: Inputs) -> Inputs:
    """Inputs of the user's task as the model of `task` takes them."""
    return task.adapt(inputs) if isinstance(task, TaskView) else inputs


def has_validation_data(task: Task) -> bool:
    """Whether the user's task has a `validate` of its own."""
    while isinstance(task, TaskView):
        task = task.task
    return type(task).validate is not Task.validate

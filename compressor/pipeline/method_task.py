"""The task as methods see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.measure import accuracy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.report import Score
    from compressor.task.guard import GuardedTask


class MethodTask:
    """What methods see of a task; they cannot import `measure` themselves."""

    def __init__(self, task: GuardedTask) -> None:
        """For the user's task."""
        self.higher_is_better = task.higher_is_better
        self.length = task.length
        self.min_length = task.min_length
        self.attention = task.attention
        self.example = task.example
        self.batches = task.batches
        self.loss = task.loss
        self._task = task

    def validate_model(self, model: nn.Module, device: torch.device) -> Score:
        """The task's validation metric of a model."""
        return accuracy.score(self._task, accuracy.torch_forward(model, device), validation=True)

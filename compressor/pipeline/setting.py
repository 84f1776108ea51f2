"""What the stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compressor.errors import TaskError
from compressor.measure import accuracy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.pipeline.folder import RunFolder
    from compressor.progress import Progress
    from compressor.recipe.model import Recipe
    from compressor.report import Score
    from compressor.task.guard import GuardedTask


@dataclass
class Setting:
    """One run: what it was given, and the notes that its stages leave for the report."""

    recipe: Recipe
    task: GuardedTask
    folder: RunFolder
    device: torch.device
    threads: int
    quick: bool
    probes: bool
    jobs: int
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def score(self, model: nn.Module) -> Score:
        """The task's metric of a model."""
        return accuracy.score(self.task, accuracy.torch_forward(model, self.device), seed=self.recipe.seed)


def try_forward(task: GuardedTask, model: nn.Module, device: torch.device) -> None:
    """Find out before any work that the model runs on the task's own example; raises `TaskError` if it does not."""
    example = task.example(2, task.length)
    try:
        accuracy.torch_forward(model, device)(*example)
    except Exception as error:
        shapes = ", ".join(str(tuple(part.shape)) for part in example)
        raise TaskError(
            f"the model does not run on `example(2, {task.length})` of shapes {shapes}: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            hint="`example(batch, length)` must give the arguments of the model's `forward`",
        ) from error

"""Tries everything that a task gives once, before any work: what is wrong with it is said within seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import TaskError
from compressor.pipeline.trial.batch import try_batch
from compressor.pipeline.trial.evaluation import try_evaluation
from compressor.pipeline.trial.memory import refuse_too_large
from compressor.pipeline.trial.model import refuse_changing, refuse_nan, refuse_precision
from compressor.pipeline.trial.notes import notes
from compressor.task.forwards import TorchForward
from compressor.task.random_state import unchanged_random_state
from compressor.task.samples import Sample, few
from compressor.task.view import has_validation_data

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.task.guard import GuardedTask


def try_out(
    task: GuardedTask, model: nn.Module, device: torch.device, *, trains: bool = True, needs_loss: bool = False
) -> tuple[Sample, ...]:
    """Call the model twice, take one batch through loss and gradients, and begin an evaluation.

    Args:
        task: The user's task.
        model: Its model, in evaluation mode, on `device`; it is not changed.
        device: Where the run will take place.
        trains: Whether the loss is tried; a task may say by `NotImplementedError` that it has none.
        needs_loss: It may not, since a step computes it.

    Returns:
        A few inputs of the task's own data. What its author should know besides is added to the task's notes.

    Raises:
        TaskError: Something does not run or cannot be right; the message says what, the place is the task's file.
    """
    with unchanged_random_state(device):  # how many batches are drawn here depends on the clock
        return _tried(task, model, device, trains, needs_loss)


def _tried(
    task: GuardedTask, model: nn.Module, device: torch.device, trains: bool, needs_loss: bool
) -> tuple[Sample, ...]:
    refuse_precision(task, model)
    refuse_too_large(task, model, device)
    forward = TorchForward(model, device)
    example = task.example(2, task.length)
    refuse_changing(task, model, forward, example)
    outputs = forward(*example)
    refuse_nan(task, example, outputs)
    real = []
    try:
        real.append(Sample("batches", few(task, try_batch(task, model, device, trains))))
    except TaskError as error:
        if needs_loss or not isinstance(error.__cause__, NotImplementedError):  # the task says that it has none
            raise
    evaluated = try_evaluation(task, forward)
    if evaluated is not None:
        real.append(Sample("evaluate", few(task, evaluated)))
    if trains and has_validation_data(task):
        try_evaluation(task, forward, "validate")
    task.notes = (*task.notes, *notes(task, forward, example, outputs, real))
    return tuple(real)

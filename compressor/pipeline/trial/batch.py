"""Trials of the first batch: its inputs, the loss and the gradients."""

from __future__ import annotations

import copy
import itertools
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import first_line
from compressor.pipeline.trial.results import plain, problem, refuse_other_lengths

if TYPE_CHECKING:
    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask

_MORE = 64
_SECONDS = 0.5
"""After the first batch so many more are drawn, if they come so quickly."""


def try_batch(task: GuardedTask, model: nn.Module, device: torch.device, trains: bool) -> Inputs:
    """The inputs of the first batch; some more are drawn, which the task's guard holds against the example."""
    batches = iter(task.batches(torch.Generator().manual_seed(0)))
    first = next(batches, None)
    if first is None:
        raise problem(task, "`batches` gives no batch", "yield pairs (inputs, target)")
    inputs, target = first
    refuse_other_lengths(task, inputs, "the first of `batches`")
    if trains:
        _try_loss(task, model, device, inputs, target)
    end = time.monotonic() + _SECONDS
    for _ in itertools.takewhile(lambda _: time.monotonic() < end, itertools.islice(batches, _MORE)):
        pass
    return inputs


def _try_loss(task: GuardedTask, model: nn.Module, device: torch.device, inputs: Inputs, target: Any) -> None:
    trained = copy.deepcopy(model).train()
    moved = target.to(device) if isinstance(target, Tensor) else target
    try:
        outputs = trained(*(part.to(device) for part in inputs))
    except Exception as error:
        shapes = ", ".join(str(tuple(part.shape)) for part in inputs)
        raise problem(
            task,
            f"the model does not run on the first of `batches`, of shapes {shapes}: {first_line(error)}",
            "`batches` must give what `forward` takes",
        ) from error
    loss = task.loss(outputs, moved)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise problem(task, f"`loss` must give one number as a tensor, not {given}", "take the mean over the batch")
    if not loss.is_floating_point():
        raise problem(task, f"`loss` gives {plain(loss.dtype)}", "a loss is a real number: float32")
    if not bool(loss.isfinite().all()):
        raise problem(
            task,
            f"`loss` gives {float(loss.detach())} on the first batch",
            "look for log(0), or labels outside the classes",
        )
    if not loss.requires_grad:
        raise problem(
            task,
            "`loss` has no gradient",
            "compute it from the outputs with PyTorch's functions: no `.detach()`, `.item()` or NumPy; some parameter "
            "must want a gradient",
        )
    _try_gradients(task, trained, loss)


def _try_gradients(task: GuardedTask, trained: nn.Module, loss: Tensor) -> None:
    """Refuse gradients that cannot be computed, are not finite, or are 0 everywhere."""
    try:
        loss.backward()
    except Exception as error:
        raise problem(
            task,
            f"the gradient of `loss` cannot be computed: {first_line(error)}",
            "PyTorch needs the values that were computed: change no tensor in place, and build none under no_grad",
        ) from error
    gradients = {name: part.grad for name, part in trained.named_parameters() if part.grad is not None}
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise problem(
                task,
                f"the gradient of `loss` is not finite in `{name}`",
                "look for a square root or a norm of 0, a logarithm of 0, or a division by 0",
            )
    if not any(bool(gradient.any()) for gradient in gradients.values()):
        raise problem(
            task,
            "the gradient of `loss` is 0 in every parameter, so nothing can be learned",
            "compute the loss from the model's outputs; rounding, argmax and comparisons have no gradient",
        )

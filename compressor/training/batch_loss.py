"""The loss of a training batch: of the task, of a teacher, or of both; refuses what cannot be trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import CompressorError, MethodError, TaskError
from compressor.nn.accelerators import autocasts_to_bf16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from compressor.training.distillation import Teacher


def batch_loss(
    model: nn.Module,
    task_loss: Callable[[Any, Any], Tensor],
    teacher: Teacher | None,
    *,
    teacher_share: float,
    device: torch.device,
    bf16: bool,
) -> Callable[[Any], Tensor]:
    """Batch -> loss.

    Args:
        model: What is trained.
        task_loss: (outputs, target) -> loss.
        teacher: What it is taught by, None without.
        teacher_share: Share of the teacher's loss, 0..1; at 1 the task's is not computed.
        device: Where the model is.
        bf16: Run model and teacher under bfloat16 autocast, if the device is an accelerator that has it.
    """
    move = device.type != "cpu"

    def of_batch(batch: Any) -> Tensor:
        inputs, target = _parts(batch)
        if move:
            inputs, target = to_device(inputs, device), to_device(target, device)
        outputs = _run(model, inputs)
        if teacher is None:
            return of_task(outputs, target)
        distance = teacher.loss(inputs, outputs)
        if teacher_share == 1.0:
            return distance
        return (1.0 - teacher_share) * of_task(outputs, target) + teacher_share * distance

    def of_task(outputs: Any, target: Any) -> Tensor:
        loss = task_loss(outputs, target)
        check_loss(loss)
        return loss

    def of_batch_bf16(batch: Any) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return of_batch(batch)

    return of_batch_bf16 if bf16 and autocasts_to_bf16(device) else of_batch


@torch.no_grad()
def mean_distance(model: nn.Module, teacher: Teacher, batches: Iterable[Any], device: torch.device) -> float:
    """Mean over batches of the distance of a model's outputs to the teacher's, hidden modules left out."""
    distances = []
    for batch in batches:
        inputs = to_device(_parts(batch)[0], device)
        distances.append(float(teacher.output_distance(inputs, _run(model, inputs))))
    mean = sum(distances) / len(distances)
    if not math.isfinite(mean):
        raise MethodError(
            "the distance to the original on the batches that `hold_back` sets aside is not finite",
            hint="lower `lr`, or look at what the model gives for these batches",
        )
    return mean


def check_loss(value: Any) -> None:
    """Raise `MethodError` if the task's loss cannot be trained on: no tensor, no scalar, no gradient."""
    if not isinstance(value, Tensor):
        raise MethodError(f"the task's loss is a {type(value).__name__}", hint="`Task.loss` must give a scalar tensor")
    if value.ndim != 0:
        raise MethodError(
            f"the task's loss has shape {tuple(value.shape)}, but a scalar is needed",
            hint="`Task.loss` must reduce over the batch, with `.mean()` for instance",
        )
    if not value.requires_grad:
        raise MethodError(
            "the task's loss does not depend on any trainable parameter",
            hint="compute `Task.loss` from the outputs, without `.detach()`, `.item()` or `torch.no_grad()`",
        )


def to_device(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it (in tuples, lists, dictionaries) on the device; other things as they are."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, PackedSequence):
        return value.to(device=device)  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(to_device(item, device) for item in value)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value


def _parts(batch: Any) -> tuple[tuple[Any, ...], Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], (tuple, list)):
        return tuple(batch[0]), batch[1]
    raise TaskError(
        "`Task.batches` gave something else than (inputs, target) with a tuple of inputs",
        hint="yield `((x,), y)`, also if there is one input only",
    )


def _run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    try:
        return model(*inputs)
    except (CompressorError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(item.shape)) if hasattr(item, "shape") else repr(item) for item in inputs)
        raise MethodError(
            f"the model raised {type(error).__name__} on a training batch of inputs {shapes}: {error}",
            hint="`Task.batches` must give the inputs that the model's `forward` takes",
        ) from error

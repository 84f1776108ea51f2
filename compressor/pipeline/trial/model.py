"""Trials of the model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.pipeline.trial.results import equal, plain, problem
from compressor.task.fidelity import tensors_of
from compressor.task.model_checks import changed_tensors, kept_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from compressor.task.contract import Inputs
    from compressor.task.guard import GuardedTask


def refuse_precision(task: GuardedTask, model: nn.Module) -> None:
    """Refuse a model that is not in float32: the tool computes and exports in it."""
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise problem(
                task,
                f"`{name}` of the model is in {plain(tensor.dtype)}, and only float32 models are compressed",
                "call `.float()` on the model in `model`; an export option stores it in fewer bits",
            )


def refuse_changing(task: GuardedTask, model: nn.Module, forward: Callable[..., Any], example: Inputs) -> None:
    """Refuse a model that gives something else in a second call: its file could not agree with it."""
    before = kept_tensors(model)
    with torch.random.fork_rng():
        first, second = tensors_of(forward(*example)), tensors_of(forward(*example))
        if equal(first, second):
            return
        changed = changed_tensors(model, before)
        random = [_seeded(forward, example) for _ in range(2)]
    if equal(*random) and not changed:
        raise problem(
            task,
            "the model gives other results in a second call on the same input: it draws random numbers in evaluation "
            "mode",
            "draw only `if self.training`, or let the caller hand the noise over as an input",
        )
    where = f" in `{changed[0]}`" if changed else " in an attribute"
    raise problem(
        task,
        f"the model gives other results in a second call on the same input: it keeps a state{where}",
        "take the state as an input and return the new one; a file remembers nothing between calls",
    )


def _seeded(forward: Callable[..., Any], example: Inputs) -> list[Tensor]:
    torch.manual_seed(0)
    return tensors_of(forward(*example))


def refuse_nan(task: GuardedTask, example: Inputs, outputs: Any) -> None:
    """Refuse NaN among the example's inputs, or else among the outputs for it."""
    for name, part in zip(task.inputs, example, strict=True):
        if part.is_floating_point() and bool(part.isnan().any()):
            raise problem(
                task,
                f"`example(2, {task.length})` gives NaN in `{name}`",
                "let `example` give inputs as they are in use; `torch.empty` gives whatever the memory holds",
            )
    for name, part in zip(task.outputs, tensors_of(outputs), strict=True):
        if part.is_floating_point() and bool(part.isnan().any()):
            raise problem(
                task,
                f"the model gives NaN in `{name}` for `example(2, {task.length})`",
                "let `example` give inputs as they are in use; a row that is masked whole gives NaN in a softmax",
            )

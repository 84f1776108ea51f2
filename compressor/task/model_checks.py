"""Refuses models that nothing can be done with, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from compressor.errors import TaskError

if TYPE_CHECKING:
    from compressor.nn.attention.parts import AttentionParts

_SHOWN = 5


def check_model(model: Any, attention: Mapping[str, AttentionParts]) -> None:
    """Check what `Task.model` gave.

    Raises:
        TaskError: It is no module, is quantized or compiled, has parameters that are not finite, not there, or made for
            inference only, or lacks the attention that the task names.
    """
    if not isinstance(model, nn.Module):
        several = "several modules are one whose `forward` runs them, and `modules` names those that become files"
        raise TaskError(
            f"`model` must give a torch.nn.Module, not {type(model).__name__}",
            hint=several if isinstance(model, (Mapping, tuple, list)) else None,
        )
    _refuse_kinds(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    _refuse(
        [name for name, tensor in tensors if is_lazy(tensor)],
        "the model has parameters without a size",
        "call the model once in `model`, so that its lazy layers find their sizes",
    )
    _refuse(
        [name for name, tensor in tensors if tensor.is_meta],
        "the model has parameters without values (on the device `meta`)",
        "load its weights in `model`",
    )
    _refuse(
        [name for name, tensor in tensors if tensor.is_inference()],
        "the model was made in inference mode and cannot be trained",
        "build it outside of `torch.inference_mode()`",
    )
    # Parameters alone: a buffer may well hold a mask of minus infinity.
    _refuse(
        [name for name, tensor in model.named_parameters() if not bool(tensor.isfinite().all())],
        "the model's weights are not finite",
        "NaN or infinity in a checkpoint means that training diverged; take an earlier checkpoint",
    )
    if attention:
        from compressor.surgery.attention.declared_sites import check_declared

        check_declared(model, attention)


def kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what a model may remember between calls: buffers, and tensors that modules keep as plain attributes."""
    kept = {name: value.clone() for name, value in model.named_buffers()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor):
                kept[f"{name}.{attribute}" if name else attribute] = value.clone()
    return kept


def changed_tensors(model: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """Names of those that are other ones now, or new."""
    after = kept_tensors(model)
    return [name for name in after if name not in before or not _same(after[name], before[name])]


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)


def _refuse_kinds(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kind = type(module)
        if ".quantized" in kind.__module__ and kind.__module__.startswith("torch."):
            raise TaskError(
                f"`{name or kind.__name__}` is a quantized {kind.__name__}",
                hint="give the float model that it was made of; `precision: int8` of an export rounds it",
            )
        if kind.__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
            raise TaskError(
                f"`{name or 'the model'}` is compiled (torch.compile)",
                hint="give the model itself: `compiled._orig_mod`",
            )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TaskError(
            f"the model is wrapped in {type(model).__name__}", hint="give the model inside: `wrapped.module`"
        )


def _refuse(names: list[str], what: str, remedy: str) -> None:
    if names:
        listed = ", ".join(f"`{name}`" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise TaskError(f"{what}: {listed}{more}", hint=remedy)

"""What a task's model is made of, and what of it can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import CompressorError, MethodError
from compressor.measure import accuracy, size
from compressor.methods.targets import select_weights
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.pipeline.dry_run import try_out
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.units import removal
from compressor.surgery.units.choice import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.progress import Progress
    from compressor.task.guard import GuardedTask


def inspected(task: GuardedTask, *, evaluate: bool, progress: Progress) -> dict[str, Any]:
    """The facts about a task's model: its modules, its attention, its size, and on request its metric.

    Raises:
        TaskError: The task, or its model, cannot be tried.
    """
    model = task.model()
    try_out(task, model, torch.device("cpu"))
    with progress.bar("tracing the model", None):
        rows = modules(model, task.example(2, task.length))
    score = None
    if evaluate:
        with progress.bar("evaluating", None):
            score = accuracy.score(task, model).model_dump(mode="json")
    attention = attentions(model, with_known(model, task.attention))
    return {"task": task.name, "modules": rows, "attention": attention, "total": _total(model), "score": score}


def modules(model: nn.Module, example: tuple[Tensor, ...]) -> list[dict[str, Any]]:
    """One row for each module that owns parameters, a shared parameter under its first owner.

    `weights` is `default`, `named` (only if `targets` names it) or none; `units` is the number of hidden units that can
    be removed, or none with the reason under `units_refused`.
    """
    total = _total(model)["parameters"]
    recurrent = recurrent_modules(model)
    prunable = _prunable(model)
    seen: set[int] = set()
    rows = []
    for name, module in model.named_modules():
        own = {key: value for key, value in module.named_parameters(recurse=False) if id(value) not in seen}
        seen.update(id(value) for value in own.values())
        if not own:
            continue
        count = sum(value.numel() for value in own.values())
        units, refused = _units(model, name, example) if name in recurrent else (None, None)
        prefix = f"{name}." if name else ""
        rows.append(
            {
                "name": name or "(model)",
                "type": type(module).__name__,
                "options": module.extra_repr(),
                "shapes": {key: list(value.shape) for key, value in own.items()},
                "parameters": count,
                "share": count / total,
                "weights": next((prunable[prefix + key] for key in own if prefix + key in prunable), None),
                "units": units,
                "units_refused": refused,
            }
        )
    return rows


def attentions(model: nn.Module, declared: Mapping[str, AttentionParts]) -> list[dict[str, Any]]:
    """One row for each multi-head attention, with the reason if its heads can never be removed."""
    return [
        {
            "name": site.name or "(model)",
            "kind": site.kind,
            "heads": site.heads,
            "head_width": site.head_width,
            "value_head_width": site.value_head_width,
            "refused": site.reason,
        }
        for site in attention_sites(model, declared).attentions
    ]


def _prunable(model: nn.Module) -> dict[str, str]:
    """Parameter name -> whether `prune: weights` takes it by default or only if it is named."""
    found = {}
    for targets, how in ((("*",), "named"), (None, "default")):
        try:
            names = select_weights(model, targets, (), "both").names
        except MethodError:  # the model has none of this kind
            continue
        found.update(dict.fromkeys(names, how))
    return found


def _units(model: nn.Module, name: str, example: tuple[Tensor, ...]) -> tuple[int | None, str | None]:
    """Hidden units of a recurrent module if one can be taken out, else the reason why not; the model is not changed."""
    try:
        removal.prune(model, {}, [example], names=[name], amount=Amount(count=1))
    except CompressorError as error:
        return None, error.message
    return int(model.get_submodule(name).hidden_size), None  # type: ignore[arg-type]


def _total(model: nn.Module) -> dict[str, int]:
    parameters, nonzeros = size.count(model)
    data_bytes = sum(value.numel() * value.element_size() for value in model.parameters())
    return {"parameters": parameters, "nonzeros": nonzeros, "bytes": data_bytes}

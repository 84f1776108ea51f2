"""Whether an attention is causal self-attention: what it is called with says so, and what it gives out agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.attention.causal_masks import is_causal_mask
from compressor.nn.attention.plain import plain_attention
from compressor.surgery.refit.calibration import calls, evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressor.surgery.refit.calibration import Batches

    Arguments = Mapping[str, Any]

_TOLERANCE = 1e-5
"""Largest change of an earlier output, relative to the largest output, that counts as rounding."""
MOST_PERTURBED = 4
"""Calls of a layer that are tried with other inputs."""


@dataclass(frozen=True)
class Evidence:
    """What was seen of one attention."""

    calls: tuple[Arguments, ...]
    """Its arguments by name, call by call."""
    reason: str | None
    """Why it is not causal self-attention; None if it is."""


def evidence(
    model: nn.Module, names: Sequence[str], batches: Batches, advance: Callable[[], None] = lambda: None
) -> dict[str, Evidence]:
    """Watch the attentions of a model at work.

    A layer is causal self-attention if every call of it has one sequence for queries, keys and values and a mask
    that hides just what lies behind, and if its outputs up to a position stay as they are when the inputs behind
    that position change.

    Args:
        model: The model.
        names: Modules that are called as `nn.MultiheadAttention` is.
        batches: Inputs of the model.
        advance: Called after each batch.

    Returns:
        Name -> what was seen.
    """
    seen: dict[str, list[Arguments]] = {name: [] for name in names}
    with evaluating(model), plain_attention():
        for inputs in batches:
            for name, call in calls(model, names, inputs):
                seen[name].append(call.arguments)
            advance()
        return {
            name: Evidence(tuple(arguments), _reason(model.get_submodule(name), arguments))
            for name, arguments in seen.items()
        }


def _reason(module: nn.Module, seen: Sequence[Arguments]) -> str | None:
    if not seen:
        return "it is never called as a module, so its masks cannot be seen"
    if not all(_one_sequence(arguments) for arguments in seen):
        return "it attends from one sequence to another (cross-attention)"
    telling = [arguments for arguments in seen if _length(module, arguments) > 1]
    if not telling:
        return "every call has one position only, which shows nothing about later ones"
    return _reason_of_masks([arguments.get("attn_mask") for arguments in telling]) or (
        "its outputs change with later inputs, whatever its mask says"
        if any(_call_looks_ahead(module, arguments) for arguments in telling[:MOST_PERTURBED])
        else None
    )


def _reason_of_masks(masks: Sequence[Tensor | None]) -> str | None:
    for mask in masks:
        if mask is None:
            return "it is called without a mask, so every position sees later ones"
        if not is_causal_mask(mask):
            return (
                "its mask is not just causal: it shows later positions, hides earlier ones (padding belongs into "
                "key_padding_mask) or adds numbers"
            )
    return None


def time_axis(module: nn.Module, x: Tensor) -> int:
    """The axis of an attention's input along which positions lie."""
    return 1 if x.dim() == 3 and module.batch_first else 0


def _one_sequence(arguments: Arguments) -> bool:
    query = arguments["query"]
    return all(
        part.shape == query.shape and torch.equal(part, query) for part in (arguments["key"], arguments["value"])
    )


def _length(module: nn.Module, arguments: Arguments) -> int:
    x = arguments["query"]
    return int(x.shape[time_axis(module, x)])


def looks_ahead(run: Callable[[Tensor], Tensor], x: Tensor, axis: int, tolerance: float) -> bool:
    """Whether outputs up to a position change with the inputs behind it; tried at the first, the middle, the last.

    Args:
        run: Inputs -> outputs, with positions along the same axis.
        x: The inputs, of more than one position.
        axis: Of the positions.
        tolerance: Largest change, relative to the largest output, that counts as rounding.
    """
    length = x.shape[axis]
    generator = torch.Generator().manual_seed(0)
    expected = run(x)
    for end in sorted({1, length // 2, length - 1}):
        noise = torch.randn(x.shape, generator=generator).to(x)
        behind = torch.arange(length, device=x.device) >= end
        behind = behind.view(*(-1 if axis == at else 1 for at in range(x.dim())))
        outputs = run(torch.where(behind, x + noise * x.abs().amax().clamp(min=1.0), x))
        before, after = (part.narrow(axis, 0, end).nan_to_num() for part in (expected, outputs))
        if float((before - after).abs().max()) > tolerance * float(expected.nan_to_num().abs().max()):
            return True
    return False


def _call_looks_ahead(module: nn.Module, arguments: Arguments) -> bool:
    x: Tensor = arguments["query"]

    def run(changed: Tensor) -> Tensor:
        output: Tensor = module(**{**arguments, "query": changed, "key": changed, "value": changed})[0]
        return output

    return looks_ahead(run, x, time_axis(module, x), _TOLERANCE)

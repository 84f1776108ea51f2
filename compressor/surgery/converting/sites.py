"""The recurrent layers of a model that can be converted, and what the task's data show of their calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.recurrent.layers import is_layer
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.surgery.refit.calibration import calls, evaluating

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.surgery.refit.calibration import Call

NOT_CALLED = "it is not called as a module on the task's data"
GIVEN_STATES = (
    "it is given an initial state that is not zero or that depends on the model's inputs, and a converted layer has "
    "other states"
)


@dataclass(frozen=True)
class Seen:
    """What the data show of a layer."""

    reason: str | None
    """Why it cannot be converted; None if it can."""
    calls: tuple[Call, ...] = ()
    """On the calibration batches."""


def convertible_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> module, for every recurrent layer of PyTorch's, also with units of different numbers left."""
    uneven = {name: module for name, module in model.named_modules() if isinstance(module, UnevenRecurrent)}
    inside = tuple(f"{name}." if name else "" for name in uneven)
    native = {
        name: module for name, module in model.named_modules() if is_layer(module) and not name.startswith(inside)
    }
    order = [name for name, _ in model.named_modules()]
    return dict(sorted((native | uneven).items(), key=lambda item: order.index(item[0])))


def watch(
    model: nn.Module,
    names: Sequence[str],
    examples: Sequence[tuple[Tensor, ...]],
    batches: Sequence[tuple[Tensor, ...]],
    generator: torch.Generator,
) -> dict[str, Seen]:
    """What the task's examples and calibration batches show of these layers.

    The examples are run as they are and with random numbers in place of all floating-point inputs: an initial state
    that only happens to be zero in an example is found out.

    Args:
        model: The model.
        names: Of the layers.
        examples: Inputs.
        batches: Inputs whose calls are kept.
        generator: On the CPU.
    """
    stirred = [tuple(_random(part, generator) for part in example) for example in examples]
    with evaluating(model):
        looked = [call for inputs in (*examples, *stirred) for call in calls(model, names, inputs)]
        kept = [call for inputs in batches for call in calls(model, names, inputs)]
    result = {}
    for name in names:
        every = [call for own, call in (*looked, *kept) if own == name]
        own = tuple(call for other, call in kept if other == name)
        reason = None if own else NOT_CALLED
        if any(_starts_elsewhere(call.arguments) for call in every):
            reason = GIVEN_STATES
        result[name] = Seen(reason, own)
    return result


def _random(part: Tensor, generator: torch.Generator) -> Tensor:
    if not part.is_floating_point():
        return part
    return torch.randn(part.shape, generator=generator).to(part)


def _starts_elsewhere(arguments: Mapping[str, Any]) -> bool:
    states = arguments.get("hx")
    parts = states if isinstance(states, (tuple, list)) else [states]
    return any(isinstance(part, Tensor) and bool(part.count_nonzero()) for part in parts)

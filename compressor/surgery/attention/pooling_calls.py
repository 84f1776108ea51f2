"""Reads the calls of a pooling: its sequence, the order of axes, the size of what it gives.

A pooling is a module that makes one vector (B, F) of a sequence (B, T, D).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compressor.errors import SurgeryError

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCHES = (3, 7)
"""Batch sizes of the runs that are compared."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class SeenCall:
    """One call of a pooling."""

    arguments: dict[str, Any]
    output: Any


def seen_calls(model: nn.Module, name: str, inputs: tuple[Tensor, ...]) -> list[SeenCall]:
    """Run the model; gives the calls of the module called `name`, detached from what comes later."""
    module = model.get_submodule(name)
    signature = inspect.signature(module.forward)
    waiting: list[dict[str, Any]] = []
    seen: list[SeenCall] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        waiting.append(tree_map_only(Tensor, torch.clone, dict(signature.bind(*args, **kwargs).arguments)))

    def after(_module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        seen.append(SeenCall(waiting.pop(), tree_map_only(Tensor, torch.clone, output)))

    parameter = next(model.parameters(), None)
    with (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ):
        model(*(inputs if parameter is None else (part.to(parameter.device) for part in inputs)))
    return seen


def calls_on_example(model: nn.Module, name: str, inputs: tuple[Tensor, ...], size: tuple[int, int]) -> list[SeenCall]:
    """`seen_calls` on the task's example of this (batch size, length).

    Raises:
        SurgeryError: The model does not run on it.
    """
    try:
        return seen_calls(model, name, inputs)
    except Exception as error:
        raise SurgeryError(
            f"the model does not run on the task's example of batch size {size[0]} and length {size[1]}: "
            f"{type(error).__name__}: {error}",
            hint="`example(batch, length)` must give inputs of any batch size, and of any length from `min_length` on",
        ) from error


def only_call(seen: list[SeenCall], name: str) -> SeenCall:
    """The one call; refuses none and several."""
    if len(seen) != 1:
        how = "is not called" if not seen else f"is called {len(seen)} times"
        raise SurgeryError(
            f"`{name}` {how} in one run of the model, and a pooling is replaced that is called once",
            hint="name a module that makes one vector of one sequence",
        )
    return seen[0]


def positional_arguments(module: nn.Module, name: str) -> tuple[str, ...]:
    """Names of the arguments of `forward` that may be given by position."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters):
        raise SurgeryError(
            f"`forward` of `{name}` takes `*arguments`, so it cannot be told which of them is the sequence",
            hint="give its arguments names",
        )
    return tuple(item.name for item in parameters if item.kind in _POSITIONAL)


def output_size(name: str, calls: Sequence[SeenCall], batches: Sequence[int]) -> int:
    """F; refuses what is not (B, F)."""
    sizes = set()
    for seen, batch in zip(calls, batches, strict=True):
        output = seen.output
        if not isinstance(output, Tensor) or output.dim() != 2 or output.size(0) != batch:
            raise SurgeryError(
                f"`{name}` gives {described(output)} for a batch of {batch}; a pooling gives one vector each, (B, F)",
                hint="name a module around it that gives just that, with its rows flattened and no attention weights",
            )
        sizes.add(output.size(1))
    if len(sizes) != 1:
        raise SurgeryError(
            f"`{name}` gives vectors whose size changes with the length of the sequence, {sorted(sizes)}",
            hint="name a module that gives vectors of one size",
        )
    return sizes.pop()


def find_sequence(name: str, calls: Sequence[SeenCall]) -> tuple[str, tuple[int, int, int]]:
    """The argument that is the sequence, and its axes of batch, steps and features."""
    first = calls[0].arguments
    sequences = {
        key: value
        for key, value in first.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3 and not _is_mask(value, first)
    }
    values = list(sequences.values())
    if not sequences or not all(same_tensor(values[0], other) for other in values[1:]):
        listed = ", ".join(f"`{key}` ({described(value)})" for key, value in first.items())
        which = "several sequences" if sequences else "no sequence with 3 axes, padded and not packed,"
        raise SurgeryError(
            f"`{name}` is given {which} among its arguments: {listed}",
            hint="name a module that makes one vector of one sequence (B, T, D)",
        )
    key = next(iter(sequences))
    shapes = [tuple(seen.arguments[key].shape) for seen in calls]
    batch = [axis for axis in range(3) if (shapes[0][axis], shapes[1][axis]) == BATCHES]
    if len(shapes) == 3:
        steps = [axis for axis in range(3) if axis not in batch and shapes[2][axis] != shapes[0][axis]]
    else:
        steps = [axis for axis in range(2) if axis not in batch]  # of one length only: features are last as a rule
    if len(batch) != 1 or len(steps) != 1:
        shown = ", ".join(map(str, shapes))
        raise SurgeryError(
            f"it cannot be told which axis of `{key}` of `{name}` is the batch and which are the steps: its shapes are "
            f"{shown} in runs of other batch sizes and lengths",
            hint="name a module whose sequence grows with the length of the task's example",
        )
    return key, (batch[0], steps[0], 3 - batch[0] - steps[0])


def _is_mask(value: Tensor, arguments: dict[str, Any]) -> bool:
    """Whether a tensor of 3 axes is rather a mask with an axis of size 1, beside a sequence that has none."""
    others = [other for other in arguments.values() if isinstance(other, Tensor) and other.dim() == 3]
    return 1 in value.shape and any(1 not in other.shape for other in others)


def same_tensor(first: Any, second: Tensor) -> bool:
    """Whether a value is a tensor of the same shape and values."""
    return isinstance(first, Tensor) and first.shape == second.shape and torch.equal(first, second)


def described(value: Any) -> str:
    """What messages call a value: the type and shape of a tensor, else the type."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"

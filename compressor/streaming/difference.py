"""The first module that computes something else step by step than on the whole sequence."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.hooks import hooked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class Difference:
    """The first difference between running step by step and running the whole sequence."""

    name: str
    """Of the module."""
    position: int
    inputs_differ: bool
    """What the module gets differs already."""


@dataclass(frozen=True)
class _Seen:
    """First input and first output of a module in one call."""

    name: str
    input: Tensor | None
    output: Tensor


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[_Seen]]:
    seen: list[_Seen] = []

    def hook(name: str) -> Any:
        def keep(_: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor):
                seen.append(_Seen(name, inputs[0] if inputs and isinstance(inputs[0], Tensor) else None, first))

        return keep

    with hooked(module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name):
        yield seen


def first_difference(
    model: nn.Module, step: Callable[[int], Any], whole: Callable[[], Any], length: int, *, tolerance: float
) -> Difference | None:
    """The first module, in the order in which they end, whose outputs step by step differ from those on the sequence.

    Args:
        model: The model inside both.
        step: Runs position t, the positions in order.
        whole: Runs the whole model.
        length: T, the number of positions.
        tolerance: Largest absolute and relative difference that is none.

    Returns:
        None if every module that can be compared agrees.
    """
    with _recording(model) as seen:
        whole()
        expected = list(seen)
    steps = []
    for position in range(length):
        with _recording(model) as seen:
            step(position)
            steps.append(_by_name(seen))
    for name, calls in _by_name(expected).items():
        if any(len(few.get(name, [])) != len(calls) for few in steps):
            continue  # a cell in a loop, or a layer that is computed in another way
        for position, few in enumerate(steps):
            for wanted, actual in zip(calls, few[name], strict=True):
                if not _agree(wanted.output, actual.output, position, length, tolerance):
                    both = wanted.input is not None and actual.input is not None
                    differ = both and not _agree(wanted.input, actual.input, position, length, tolerance)
                    return Difference(name, position, differ)
    return None


def _by_name(seen: Sequence[_Seen]) -> dict[str, list[_Seen]]:
    calls: dict[str, list[_Seen]] = {}
    for item in seen:
        calls.setdefault(item.name, []).append(item)
    return calls


def _agree(whole: Tensor | None, step: Tensor | None, position: int, length: int, tolerance: float) -> bool:
    """Whether an output (..., 1, ...) of one position is in a whole one (..., T, ...); True if they do not compare."""
    assert whole is not None
    assert step is not None
    if whole.dim() != step.dim():
        return True
    axes = [
        axis
        for axis in range(whole.dim())
        if whole.shape[axis] == length
        and step.shape[axis] == 1
        and whole.shape[:axis] == step.shape[:axis]
        and whole.shape[axis + 1 :] == step.shape[axis + 1 :]
    ]
    if not axes:
        return True
    expected = whole.narrow(axes[0], position, 1)
    if not expected.is_floating_point():
        return torch.equal(step, expected)
    return torch.allclose(step, expected, atol=tolerance, rtol=tolerance, equal_nan=True)

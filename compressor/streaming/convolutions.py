"""Convolutions over time whose window ends at its own position: what they have to remember are the inputs before.

A causal convolution is written in two ways: the sequence is padded on the left and then convolved, or the layer pads
both sides and the outputs behind the last position are cut off. Either way output t reads the inputs t - f to t, with
f = (kernel - 1) * dilation, and a step needs the last f inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.streaming.layers import LEAVE_OUT, Arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FUNCTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
_CAUSAL = (
    "pad the sequence on its left alone by (kernel - 1) * dilation, or let the layer pad both sides by that and cut "
    f"off the last outputs, {LEAVE_OUT}"
)


@dataclass(frozen=True)
class Window:
    """How a convolution runs over time."""

    axis: int
    """Of time, in what it is given."""
    field: int
    """f, the positions that it looks back."""
    padded: int
    """How many positions of what it is given lie before the first of the sequence."""
    behind: int
    """How many outputs it gives behind the last position."""
    shape: tuple[int, ...]
    """Of its state, for one sample: (1, C, ..., f, ...)."""


def window(
    name: str, module: Any, calls: Sequence[Sequence[Arguments]], lengths: tuple[int, int], batch: int
) -> Window | None:
    """How a convolution runs over time; None if it does not, or looks at one position alone.

    Args:
        name: Of the layer.
        module: `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.
        calls: Its calls in runs of two lengths.
        lengths: The lengths.
        batch: Samples in both runs.

    Raises:
        ExportError: It looks ahead, or skips positions.
    """
    possible = [
        frozenset(_windows(module, call.get(0, "input"), length, batch))
        for few, length in zip(calls, lengths, strict=True)
        for call in few
    ]
    common = frozenset.intersection(*possible) if possible else frozenset()
    causal = [one for one in common if one.padded + _padding(module, one.axis)[0] == one.field]
    if not common or (not causal and lengths[0] == lengths[1]):  # of one length nothing tells which axis is time
        return None
    if not causal:
        raise _looks_ahead(name, module, min(common, key=lambda one: one.axis))
    chosen = min(causal, key=lambda one: one.axis)
    if module.stride[chosen.axis - 2] != 1:
        raise ExportError(
            f"`{name}` gives one output for {module.stride[chosen.axis - 2]} positions, so there is no step for one",
            hint=f"use `stride=1` over time, {LEAVE_OUT}",
        )
    return chosen


def _windows(module: Any, x: Tensor, length: int, batch: int) -> Iterator[Window]:
    """Along each axis that may be time how a layer that is given `x` runs along it."""
    axes = len(module.kernel_size)
    if x.dim() != axes + 2 or x.size(0) != batch:
        return
    for place in range(axes):
        axis, field = place + 2, (module.kernel_size[place] - 1) * module.dilation[place]
        padded = x.size(axis) - length
        if field and padded >= 0:
            shape = [1, *x.shape[1:]]
            shape[axis] = field
            yield Window(axis, field, padded, _padding(module, axis)[1], tuple(shape))


def _padding(module: Any, axis: int) -> tuple[int, int]:
    """How many positions a layer puts in front of an axis and behind it."""
    pairs = module._reversed_padding_repeated_twice  # of the last axis first
    place = 2 * (len(module.kernel_size) - 1 - (axis - 2))
    return pairs[place], pairs[place + 1]


def _looks_ahead(name: str, module: Any, found: Window) -> ExportError:
    before = found.padded + _padding(module, found.axis)[0]
    if before > found.field:
        return ExportError(
            f"`{name}` is given {before} positions of padding and looks back {found.field} only, so its outputs come "
            "later than the positions that they belong to",
            hint=_CAUSAL,
        )
    return ExportError(
        f"`{name}` looks {found.field - before} positions ahead: it spans {found.field + 1}, and {before} of them are "
        "padding on the left",
        hint=_CAUSAL,
    )


def slide(module: Any, found: Window, call: Arguments, past: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A convolution over the next few positions: its outputs, and the inputs that it remembers now.

    Args:
        module: The layer.
        found: How it runs over time.
        call: What it is given: padding, then the positions.
        past: The inputs before, (B, C, ..., f, ...).
    """
    x: Tensor = call.get(0, "input")
    positions = x.size(found.axis) - found.padded
    seen = torch.cat([past, _part(x, found.axis, found.padded, positions)], found.axis)
    axes = len(module.kernel_size)
    padding = [_padding(module, axis)[0] for axis in range(2, axes + 2)]
    padding[found.axis - 2] = 0
    y = _FUNCTIONS[axes](seen, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)
    if found.behind:  # which the model cuts off
        y = nn.functional.pad(y, _behind(y, found))
    return y, [_part(seen, found.axis, positions, found.field)]


def _part(x: Tensor, axis: int, start: int, count: int) -> Tensor:
    """Entries along an axis; as a slice, since converters of traced models do not know `narrow`."""
    part: Tensor = x[(*[slice(None)] * axis, slice(start, start + count))]
    return part


def _behind(y: Tensor, found: Window) -> list[int]:
    """Padding for `nn.functional.pad`, which begins with the last axis."""
    sides = [0] * (2 * (y.dim() - found.axis))
    sides[-1] = found.behind
    return sides


def is_plain(module: Any) -> bool:
    """Whether the layer pads with zeros, equally on both sides of each axis, or not at all."""
    pairs = module._reversed_padding_repeated_twice
    even = all(left == right for left, right in zip(pairs[::2], pairs[1::2], strict=True))
    return not any(pairs) or (even and module.padding_mode == "zeros")

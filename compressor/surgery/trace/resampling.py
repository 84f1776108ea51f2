"""Rules of operators that work on each channel by itself in space: pooling, interpolation, shuffles into space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.surgery.trace.labels import place, varies
from compressor.surgery.trace.parts import join_blocks
from compressor.surgery.trace.reductions import joined

if TYPE_CHECKING:
    from compressor.surgery.trace.state import Trace

aten = torch.ops.aten

_POOLS = (
    "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "grid_sampler_2d", "grid_sampler_3d", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
)  # fmt: skip
RESAMPLING: dict[Any, int] = {
    getattr(aten, name).default: next(int(mark) for mark in name if mark in "123") for name in _POOLS
}
"""Operators on the last axes, channel by channel, which give 0 for 0; and how many axes. Pooling over one axis arrives
as one over two."""


def resample(trace: Trace, func: Any, labels: Tensor | None, output: Tensor) -> None:
    """Along the last axes no two units may meet; what comes out belongs to the same channels."""
    axes = list(range(-RESAMPLING[func], 0))
    if labels is not None and any(varies(labels, axis) for axis in axes):
        trace.atoms.pin(
            labels.numpy(), f"the {'pooling' if 'pool' in func.name() else 'resampling'} at {place()} slides over it"
        )
    elif labels is not None:
        trace.write(output, labels.amax(dim=axes, keepdim=True).expand(output.size()))


def _spatially_fixed(trace: Trace, tensor: Tensor, axes: list[int]) -> Tensor | None:
    """Labels of a tensor, None if it has none or they vary along these axes, which pins them."""
    labels = trace.read(tensor)
    if labels is None or not any(varies(labels, axis) for axis in axes):
        return labels
    trace.atoms.pin(labels.numpy(), f"the shuffle at {place()} moves it in space")
    return None


def _pixel_shuffle(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """R * r channels make one: they go together."""
    labels = _spatially_fixed(trace, args[0], [-1, -2])
    if labels is not None:
        parts = labels[..., :1, :1].unflatten(-3, (-1, args[1] ** 2))  # (..., C, r * r, 1, 1)
        trace.write(outputs[0], joined(trace, parts, [parts.dim() - 3]).amax(-3).expand(outputs[0].size()))


def _pixel_unshuffle(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """One channel makes r * r."""
    labels = _spatially_fixed(trace, args[0], [-1, -2])
    if labels is not None:
        parts = labels[..., :1, :1].repeat_interleave(args[1] ** 2, dim=-3)
        trace.write(outputs[0], parts.expand(outputs[0].size()))


def _unfold(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """`im2col`: one channel makes as many rows as the window has places."""
    labels = _spatially_fixed(trace, args[0], [-1, -2])
    if labels is not None:
        rows = labels[..., 0, 0].repeat_interleave(math.prod(args[1]), dim=-1)
        trace.write(outputs[0], rows.unsqueeze(-1).expand(outputs[0].size()))


def _fold(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """`col2im`: the rows of a window are added up into one channel: they go together."""
    labels = _spatially_fixed(trace, args[0], [-1])
    if labels is not None:
        rows = labels[..., :1].unflatten(-2, (-1, math.prod(args[2])))  # (..., C, window, 1)
        channels = joined(trace, rows, [rows.dim() - 2]).amax(-2)
        trace.write(outputs[0], channels.unsqueeze(-1).expand(outputs[0].size()))


def _channel_shuffle(trace: Trace, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
    """(B, g, C / g) becomes (B, C / g, g)."""
    labels = trace.read(args[0])
    if labels is None:
        return
    others = [axis for axis in range(labels.dim()) if axis != 1]
    join_blocks(trace, labels.amax(others).numpy(), args[1])
    trace.write(outputs[0], labels.unflatten(1, (args[1], -1)).transpose(1, 2).flatten(1, 2))


SHUFFLES: dict[Any, Any] = {
    aten.pixel_shuffle.default: _pixel_shuffle,
    aten.pixel_unshuffle.default: _pixel_unshuffle,
    aten.im2col.default: _unfold,
    aten.col2im.default: _fold,
    aten.channel_shuffle.default: _channel_shuffle,
    aten.native_channel_shuffle.default: _channel_shuffle,
}
"""Operator -> its rule, of the trace, arguments and outputs."""

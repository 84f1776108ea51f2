"""How closely outputs are those of the original: a metric that needs no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Sequence

FIDELITY = "fidelity"
"""Name of the metric."""
_SMALLEST = 1e-12
"""Least sum of squares that outputs are divided by."""


def tensors_of(results: Any) -> list[Tensor]:
    """The tensors in what a model gives, whatever holds them."""
    return [part for part in pytree.tree_leaves(results) if isinstance(part, Tensor)]


def fidelity(outputs: Sequence[Tensor], own: Sequence[Tensor], batch_axes: Sequence[int | None]) -> Tensor:
    """1 - |outputs - own| / |own| of each sample, at least 0; norms run over all outputs together.

    Args:
        outputs: What a compressed model or a file gives.
        own: What the original gives, of the same shapes.
        batch_axes: The axis of samples in each; outputs without one (None) are left out.

    Returns:
        Scores (N,); 1 if all outputs are the same.
    """
    error: list[Tensor] = []
    scale: list[Tensor] = []
    for ours, theirs, axis in zip(outputs, own, batch_axes, strict=True):
        if axis is not None:
            error.append(_squares(ours.double() - theirs.double(), axis))
            scale.append(_squares(theirs.double(), axis))
    relative = (torch.stack(error).sum(0) / torch.stack(scale).sum(0).clamp(min=_SMALLEST)).sqrt()
    return (1.0 - relative).clamp(min=0.0)  # (N,)


def _squares(part: Tensor, axis: int) -> Tensor:
    """Sums of squares over all axes but one."""
    return part.movedim(axis, 0).flatten(1).square().sum(1) if part.dim() > 1 else part.square()

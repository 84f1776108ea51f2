"""What an argument of a pooling may say about the steps of its sequence, as values to try."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from compressor.nn.attention.pooling_call import MaskKind


def mask_hypotheses(value: Tensor, batch: int, steps: int, kept: int) -> Iterator[tuple[MaskKind, Tensor, Tensor]]:
    """What an argument may mean: (meaning, its value if all steps are real, and if only the first `kept` are)."""
    if value.shape == (batch,):
        yield "lengths", torch.full_like(value, steps), torch.full_like(value, kept)
        return
    if tuple(size for size in value.shape if size != 1) != (batch, steps):
        return
    if value.dtype == torch.bool:
        pairs: list[tuple[MaskKind, Any, Any]] = [("real", True, False), ("padding", False, True)]
    else:
        pairs = [("real", 1, 0), ("padding", 0, 1)]
    if value.is_floating_point():
        pairs += [("padding", 0.0, -math.inf), ("padding", 0.0, -1e9), ("padding", 0.0, -1e4)]
    for kind, real, padded in pairs:
        some = torch.full_like(value, real).reshape(batch, steps)
        some[:, kept:] = padded
        yield kind, torch.full_like(value, real), some.reshape(value.shape)


def short_mask(value: Tensor, kind: MaskKind, shape: Sequence[int], steps: int) -> Tensor:
    """The mask of `steps` real steps, in the form of the one for (B, T)."""
    batch, length = shape[:2]
    if kind == "lengths":
        return torch.full_like(value, steps)
    real: Any = kind == "real"
    mask = torch.full_like(value, real)
    return mask.reshape(batch, length)[:, :steps].reshape(
        [steps if size == length and size != 1 else size for size in value.shape]
    )

"""Magnitude masks with exact counts. A mask is boolean, of its weight's shape, True = kept.

Equal magnitudes are settled by position: of two, the earlier one is pruned first. A weight that an earlier mask
pruned ranks below every other, so it stays pruned and counts towards the number asked for.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PRUNED = -1.0
"""Rank of an already pruned weight, below every magnitude."""
_PADDING = -2.0
"""Rank of a place that fills up the last group of an N:M pattern, below every weight."""


def pruned_count(total: int, sparsity: float) -> int:
    """Number of weights to prune: `sparsity * total`, halves rounded up.

    Computed on the decimal number as it was written: 0.7 of 45 is 31.5 and gives 32, while in binary floating point
    it is 31.499... .
    """
    return int((Decimal(str(sparsity)) * total).to_integral_value(ROUND_HALF_UP))


def smallest_pruned(weights: Sequence[Tensor], kept: Sequence[Tensor], count: int) -> list[Tensor]:
    """Masks that prune the `count` weights of smallest magnitude, one threshold over all the tensors together.

    Args:
        weights: Finite tensors of any shapes and float dtypes, on one device.
        kept: Their masks so far, True = kept.
        count: Number of pruned weights in the result, 0..total, the already pruned ones included; if more than
            `count` are pruned already, the masks come back as they are.

    Returns:
        One boolean mask for each weight; the number of False over all of them is max(count, already pruned).
    """
    if not weights:
        return []
    sizes = [weight.numel() for weight in weights]
    ranks = torch.cat([_rank(weight, mask).flatten() for weight, mask in zip(weights, kept, strict=True)])  # (sum,)
    mask = torch.cat([item.flatten() for item in kept]) & ~_smallest(ranks, count)  # (sum,)
    return [part.view(weight.shape) for part, weight in zip(torch.split(mask, sizes), weights, strict=True)]


def n_of_m(weight: Tensor, kept: Tensor, n: int, m: int, *, axis: int = 1) -> Tensor:
    """Mask that keeps the `n` largest magnitudes of every `m` consecutive weights along `axis`.

    A shorter last group of r weights keeps min(n, r), as if it were filled up with zeros to `m`. Already pruned
    weights stay pruned and rank lowest, so they are the first of the m - n that a group loses.
    """
    ranks = _rank(weight, kept).movedim(axis, -1)  # (..., L)
    length = ranks.shape[-1]
    padded = nn.functional.pad(ranks, (0, -length % m), value=_PADDING)  # (..., ceil(L / m) * m)
    groups = padded.view(*padded.shape[:-1], padded.shape[-1] // m, m)  # (..., ceil(L / m), m)
    order = groups.argsort(dim=-1, stable=True)  # ascending; equal ones by position
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, order[..., : m - n], False)
    return mask.flatten(-2)[..., :length].movedim(-1, axis) & kept


def prune_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the pruned weights to exactly +0.0, in place; `masks` maps parameter names to masks."""
    with torch.no_grad():
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)


def _rank(weight: Tensor, kept: Tensor) -> Tensor:
    """|weight| in a dtype that holds it exactly (so that tensors of several dtypes compare), -1 if pruned."""
    magnitude = weight.detach().abs()
    exact = magnitude if magnitude.dtype == torch.float64 else magnitude.float()
    return exact.masked_fill(~kept.to(exact.device), _PRUNED)


def _smallest(ranks: Tensor, count: int) -> Tensor:
    """True at exactly `count` places (N,) of smallest rank, the first of equal ones."""
    if count <= 0:
        return torch.zeros_like(ranks, dtype=torch.bool)
    threshold = ranks.kthvalue(count).values
    below = ranks < threshold
    ties = (ranks == threshold).nonzero().squeeze(-1)  # ascending positions
    below[ties[: count - int(below.sum())]] = True
    return below

"""Scores of one query that is the same everywhere: queries and keys folded into one row for each head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def projected_query(query: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The one query of all heads, W q + b (h * d,), in a type."""
    return nn.functional.linear(query.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def score_weights(
    query: Tensor, key_weight: Tensor, key_bias: Tensor | None, heads: int, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Queries and keys folded: rows (h, E) and offsets (h,) or None; the scores of an input x are rows @ x + offsets.

    Args:
        query: `projected_query` (h * d,).
        key_weight: W_k (h * d, E).
        key_bias: b_k (h * d,), None without.
        heads: h.
        scale: s.
    """
    each = (query * scale).view(heads, 1, -1)  # (h, 1, d)
    rows = each @ key_weight.to(query.dtype).unflatten(0, (heads, -1))  # (h, 1, E)
    if key_bias is None:
        return rows[:, 0], None
    offsets = each @ key_bias.to(query.dtype).view(heads, -1, 1)  # (h, 1, 1)
    return rows[:, 0], offsets[:, 0, 0]

r"""Sums of key-value products over time, weighted by a source, transition and mark of each position.

.. math::
    y_t = \sum_{i < t} M_t \Big( \prod_{i < j < t} T_j \Big) S_i\, (q_t \cdot k_i)\, v_i + D_t\, (q_t \cdot k_t)\, v_t

A position puts its product into a memory (source S), lets a share of what is in it pass (transition T), and reads what
came before (mark M) and itself (direct D). `whole` has all weights at once, `advance` and `advance_one` carry the
memory :math:`C_t = T_t C_{t-1} + S_t k_t v_t^T` on; they give the same numbers.

Logarithms of T are summed for each pair of positions from the later one on, never as differences of sums over the
whole sequence, so that what was forgotten long ago costs no precision.

Source: pLSTM, arXiv 2506.11997, section 3 (source, transition, mark, direct), in one dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gates(NamedTuple):
    """Of T positions, (B, h, T) each."""

    transition: Tensor
    """Above 0, at most 1."""
    source: Tensor
    mark: Tensor
    direct: Tensor


def whole(queries: Tensor, keys: Tensor, values: Tensor, gates: Gates) -> Tensor:
    """All positions at once.

    Args:
        queries: q (B, h, T, k).
        keys: k (B, h, T, k).
        values: v (B, h, T, d).
        gates: Of the T positions.

    Returns:
        y (B, h, T, d).
    """
    return _inside(queries, keys, values, gates, _kept(gates.transition))


def advance(queries: Tensor, keys: Tensor, values: Tensor, gates: Gates, memory: Tensor) -> tuple[Tensor, Tensor]:
    """T more positions behind those that `memory` C (B, h, k, d) sums up: y (B, h, T, d), and C after them."""
    kept = _kept(gates.transition)
    old = (gates.mark * kept[..., :-1, 0]).unsqueeze(-1) * (queries @ memory)
    written = keys * (gates.source * kept[..., -1, 1:]).unsqueeze(-1)  # (B, h, T, k)
    after = kept[..., -1:, :1] * memory + written.transpose(-2, -1) @ values
    return _inside(queries, keys, values, gates, kept) + old, after


def advance_one(query: Tensor, key: Tensor, value: Tensor, gates: Gates, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One more position: `advance` of q and k (B, h, k), v (B, h, d) and gates (B, h), y (B, h, d)."""
    before = (query.unsqueeze(-2) @ memory).squeeze(-2)  # (B, h, d)
    itself = (query * key).sum(-1) * gates.direct  # (B, h)
    written = (gates.source.unsqueeze(-1) * key).unsqueeze(-1) * value.unsqueeze(-2)  # (B, h, k, d)
    after = gates.transition[..., None, None] * memory + written
    return gates.mark.unsqueeze(-1) * before + itself.unsqueeze(-1) * value, after


def _inside(queries: Tensor, keys: Tensor, values: Tensor, gates: Gates, kept: Tensor) -> Tensor:
    """What the T positions read of each other."""
    places = torch.arange(values.shape[-2], device=values.device)
    weights = gates.mark.unsqueeze(-1) * kept[..., :-1, 1:] * gates.source.unsqueeze(-2)  # (B, h, T, T)
    itself = torch.where(places == places[:, None], gates.direct.unsqueeze(-1), 0.0)
    weights = torch.where(places < places[:, None], weights, itself)
    return (weights * (queries @ keys.transpose(-2, -1))) @ values


def _kept(transition: Tensor) -> Tensor:
    """T (B, h, T) to (B, h, T + 1, T + 1): what position t (T: the memory after all) has left of position c - 1.

    Column 0 is the memory before all. Entries above the diagonal are 1.
    """
    logarithms = torch.cat([torch.zeros_like(transition[..., :1]), torch.log(transition)], -1)  # (B, h, T + 1)
    places = torch.arange(logarithms.shape[-1], device=transition.device)
    later = torch.where(places < places[:, None], logarithms.unsqueeze(-1), 0.0)  # of rows behind the column
    return torch.exp(later.cumsum(-2))

"""The equations of the diagonal GRU and LSTM of ParaRNN (arXiv 2510.21450, section 4), and their Jacobians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def gru(
    states: Sequence[Tensor], gates: Sequence[Tensor], diagonals: Sequence[Tensor], jacobians: bool
) -> tuple[list[Tensor], Tensor | None]:
    """One step of any number of positions.

    Args:
        states: h (..., N).
        gates: B x + b of the three gates, (..., N) each: update, reset, candidate.
        diagonals: a of the same gates, (N,) each.
        jacobians: Give J too.

    Returns:
        The new states, and J (..., S, S, N), d new state i / d old state j in row i and column j.
    """
    [h], (a_z, a_r, a_c) = states, diagonals
    z = torch.sigmoid(a_z * h + gates[0])
    r = torch.sigmoid(a_r * h + gates[1])
    c = torch.tanh(a_c * (r * h) + gates[2])
    new = h + z * (c - h)
    if not jacobians:
        return [new], None
    by_c = z * (1 - c * c) * a_c * r * (1 + h * (1 - r) * a_r)
    return [new], ((1 - z) + (c - h) * z * (1 - z) * a_z + by_c).unsqueeze(-2).unsqueeze(-2)


def lstm(
    states: Sequence[Tensor], gates: Sequence[Tensor], diagonals: Sequence[Tensor], jacobians: bool
) -> tuple[list[Tensor], Tensor | None]:
    """One step of any number of positions.

    Args:
        states: h and c (..., N).
        gates: B x + b of the three gates, (..., N) each: forget, candidate, output.
        diagonals: a of the same gates, then the peepholes of the forget and output gates, (N,) each.
        jacobians: Give J too.

    Returns:
        The new states, and J (..., S, S, N), d new state i / d old state j in row i and column j.
    """
    (h, c), (a_f, a_z, a_o, p_f, p_o) = states, diagonals
    f = torch.sigmoid(a_f * h + p_f * c + gates[0])
    z = torch.tanh(a_z * h + gates[1])
    cell = z + f * (c - z)
    o = torch.sigmoid(a_o * h + p_o * cell + gates[2])
    squashed = torch.tanh(cell)
    new = o * squashed
    if not jacobians:
        return [new, cell], None
    slope = (c - z) * f * (1 - f)
    cell_by_c = f + slope * p_f
    cell_by_h = slope * a_f + (1 - f) * (1 - z * z) * a_z
    by_gate, by_cell = squashed * o * (1 - o), o * (1 - squashed * squashed)
    new_by_c = (by_gate * p_o + by_cell) * cell_by_c
    new_by_h = by_gate * (a_o + p_o * cell_by_h) + by_cell * cell_by_h
    rows = [torch.stack([new_by_h, new_by_c], -2), torch.stack([cell_by_h, cell_by_c], -2)]
    return [new, cell], torch.stack(rows, -3)

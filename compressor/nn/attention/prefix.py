r"""Attention of one query over every prefix of a sequence, the many-to-many form of "Attention as an RNN".

Source: Feng et al., arXiv 2405.13956, section 3. With scores s_i and values v_i, output k is

.. math:: o_k = \frac{\sum_{i \le k} e^{s_i - m_k} v_i}{\sum_{i \le k} e^{s_i - m_k}}, \qquad m_k = \max_{i \le k} s_i.

`naive` (the recurrence, the reference), `whole` and `advance` (plain operations, which export) and `parallel` of
`prefix_scan` (for training) give the same numbers. All of them subtract the running maximum m_k and no other, so that
no exponent is positive and the largest term of each sum is 1: neither large scores nor their spread loses precision.

With `fade` :math:`\lambda \ge 0` a score loses :math:`\lambda` with every position that goes by, so that what came long
ago is forgotten: :math:`s_i - \lambda (k - i)` stands for :math:`s_i` in output k.

Positions that take no part have the score `nothing(dtype)`. If no position before k takes part, o_k = 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

State = tuple[Tensor, Tensor, Tensor]
"""(a, c, m): the sum of weighted values (..., d), the sum of weights (...) and the running maximum (...)."""


def start(dtype: torch.dtype) -> float:
    """m_0: below every score that may occur, and finite, since -inf - (-inf) is not a number."""
    return -1e4 if dtype == torch.float16 else -1e30


def nothing(dtype: torch.dtype) -> float:
    """The score of a position that takes no part: so far below m_0 that its weight is exactly 0."""
    return 3.0 * start(dtype)


def working_type(*tensors: Tensor) -> torch.dtype:
    """The type in which to compute: float32 for half precision, in which sums over a sequence would stall."""
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide


def initial_state(shape: tuple[int, ...], width: int, *, dtype: torch.dtype, device: torch.device) -> State:
    """The state before the first position: a = 0 (*shape, width), c = 0 (shape) and m = m_0 (shape)."""
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    return (
        torch.zeros(*shape, width, **options),
        torch.zeros(shape, **options),
        torch.full(shape, start(dtype), **options),
    )


def naive(scores: Tensor, values: Tensor, fade: Tensor | None = None) -> Tensor:
    """The recurrence, position by position.

    Args:
        scores: s (..., N).
        values: v (..., N, d).
        fade: None or what a score loses with every position, >= 0, of a shape that broadcasts to (...).

    Returns:
        o (..., N, d).
    """
    a, c, m = initial_state(tuple(scores.shape[:-1]), values.shape[-1], dtype=scores.dtype, device=scores.device)
    outputs = []
    for position in range(scores.shape[-1]):
        a, c, m = next_state(scores[..., position], values[..., position, :], (a, c, m), fade)
        outputs.append(a / c.clamp(min=1.0)[..., None])  # c >= 1 as soon as there is something
    return torch.stack(outputs, -2)


def next_state(score: Tensor, value: Tensor, state: State, fade: Tensor | None) -> State:
    """The state after one position more: s (...) and v (..., d)."""
    a, c, m = state
    if fade is not None:
        m = m - fade
    m_new = torch.maximum(m, score)
    old, new = (m - m_new).exp(), (score - m_new).exp()
    return a * old[..., None] + value * new[..., None], c * old + new, m_new


def merged(first: State, second: State) -> State:
    """The state of all positions that two states sum up."""
    (a, c, m), (a_too, c_too, m_too) = first, second
    largest = torch.maximum(m, m_too)
    one, other = (m - largest).exp(), (m_too - largest).exp()
    return a * one[..., None] + a_too * other[..., None], c * one + c_too * other, largest


def whole(scores: Tensor, values: Tensor, fade: Tensor | None = None, gates: Tensor | None = None) -> Tensor:
    """The same with all N x N weights at once, of plain operations: the form of whole-sequence files.

    Args:
        scores: s (..., N).
        values: v (..., N, d).
        fade: As in `naive`.
        gates: None or what is added to the score of each position (column) in each output (row), (..., N, N).

    Returns:
        o (..., N, d).
    """
    spread = _spread(scores, fade)  # (..., N, N)
    if gates is not None:
        spread = spread + gates
    maxima = spread.amax(-1).clamp(min=start(scores.dtype))  # (..., N)
    weights = (spread - maxima[..., None]).exp()
    return (weights @ values) / weights.sum(-1).clamp(min=1.0)[..., None]


def advance_one(score: Tensor, value: Tensor, state: State, fade: Tensor | None = None) -> tuple[Tensor, State]:
    """One more position after those that `state` sums up, of plain operations: the form of step files.

    Args:
        score: s (...), of a position that takes part.
        value: v (..., d).
        state: (a, c, m) after the positions before.
        fade: As in `naive`.

    Returns:
        o (..., d), and (a, c, m) after this position.
    """
    a, c, m = next_state(score, value, state, fade)
    return a / c[..., None], (a, c, m)


def advance(scores: Tensor, values: Tensor, state: State, fade: Tensor | None = None) -> tuple[Tensor, State]:
    """`advance_one` for T positions at a time, T >= 1.

    Args:
        scores: s (..., T), each of a position that takes part.
        values: v (..., T, d).
        state: (a, c, m) after the positions before.
        fade: As in `naive`.

    Returns:
        o (..., T, d), and (a, c, m) after the last of these positions.
    """
    sums, totals, maxima = trajectory(scores, values, state, fade)
    return sums / totals[..., None], (sums[..., -1, :], totals[..., -1], maxima[..., -1])


def trajectory(scores: Tensor, values: Tensor, state: State, fade: Tensor | None = None) -> State:
    """The states after each of T positions: (..., T, d), (..., T) and (..., T); arguments as in `advance`."""
    a, c, m = state
    spread = _spread(scores, fade)  # (..., T, T)
    before = m[..., None] if fade is None else m[..., None] - fade[..., None] * _ages(scores, after=1)  # (..., T)
    maxima = torch.maximum(spread.amax(-1), before)  # (..., T)
    weights, old = (spread - maxima[..., None]).exp(), (before - maxima).exp()
    sums = weights @ values + old[..., None] * a[..., None, :]  # (..., T, d)
    totals = weights.sum(-1) + old * c[..., None]  # (..., T)
    return sums, totals, maxima


def _spread(scores: Tensor, fade: Tensor | None) -> Tensor:
    """(..., N) -> (..., N, N): row k has the scores up to k, and that of nothing behind."""
    places = torch.arange(scores.shape[-1], device=scores.device)
    seen = places <= places[:, None]  # (N, N)
    spread = scores[..., None, :]
    if fade is not None:
        since = _ages(scores)[:, None] - _ages(scores)  # (N, N)
        spread = spread - fade[..., None, None] * since
    return torch.where(seen, spread, nothing(scores.dtype))


def _ages(scores: Tensor, after: int = 0) -> Tensor:
    """The numbers (N,) of the positions of scores (..., N), from `after` on."""
    return torch.arange(scores.shape[-1], device=scores.device, dtype=scores.dtype) + after

r"""Attention of one query over every prefix of a sequence, the many-to-many form of "Attention as an RNN".

Source: Feng et al., arXiv 2405.13956, section 3. With scores s_i and values v_i, output k is

.. math:: o_k = \frac{\sum_{i \le k} e^{s_i - m_k} v_i}{\sum_{i \le k} e^{s_i - m_k}}, \qquad m_k = \max_{i \le k} s_i.

The same numbers come out of `naive` (the recurrence, the reference), `parallel` (for training), `whole` and `advance`
(plain operations, which export). All of them subtract the running maximum m_k and no other, so that no exponent is
positive and the largest term of each sum is 1: neither large scores nor their spread does harm.

Positions that take no part have the score `nothing(dtype)`. Where no position before k takes part, o_k = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.autograd.function import FunctionCtx

State = tuple[Tensor, Tensor, Tensor]
"""(a, c, m): the sum of weighted values (..., d), the sum of weights (...) and the running maximum (...)."""

BLOCK = 64
"""Positions in a block of `parallel`: its cost is that of N * BLOCK weights, plus that of N / BLOCK positions."""


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


def naive(scores: Tensor, values: Tensor) -> Tensor:
    """The recurrence, position by position.

    Args:
        scores: s (..., N).
        values: v (..., N, d).

    Returns:
        o (..., N, d).
    """
    a, c, m = initial_state(tuple(scores.shape[:-1]), values.shape[-1], dtype=scores.dtype, device=scores.device)
    outputs = []
    for position in range(scores.shape[-1]):
        a, c, m = _next_state(scores[..., position], values[..., position, :], (a, c, m))
        outputs.append(a / c.clamp(min=1.0)[..., None])  # c >= 1 as soon as there is something
    return torch.stack(outputs, -2)


def _next_state(score: Tensor, value: Tensor, state: State) -> State:
    """One position more: s (...) and v (..., d)."""
    a, c, m = state
    m_new = torch.maximum(m, score)
    old, new = (m - m_new).exp(), (score - m_new).exp()
    return a * old[..., None] + value * new[..., None], c * old + new, m_new


def whole(scores: Tensor, values: Tensor) -> Tensor:
    """The same with all N x N weights at once, of plain operations: the form of whole-sequence files.

    Args:
        scores: s (..., N).
        values: v (..., N, d).

    Returns:
        o (..., N, d).
    """
    spread = _spread(scores)  # (..., N, N)
    maxima = spread.amax(-1).clamp(min=start(scores.dtype))  # (..., N)
    weights = (spread - maxima[..., None]).exp()
    return (weights @ values) / weights.sum(-1).clamp(min=1.0)[..., None]


def advance_one(score: Tensor, value: Tensor, state: State) -> tuple[Tensor, State]:
    """One more position after those that `state` sums up, of plain operations: the form of step files.

    Args:
        score: s (...), of a position that takes part.
        value: v (..., d).
        state: (a, c, m) after the positions before.

    Returns:
        o (..., d), and (a, c, m) after this position.
    """
    a, c, m = _next_state(score, value, state)
    return a / c[..., None], (a, c, m)


def advance(scores: Tensor, values: Tensor, state: State) -> tuple[Tensor, State]:
    """`advance_one` for T positions at a time, T >= 1.

    Args:
        scores: s (..., T), each of a position that takes part.
        values: v (..., T, d).
        state: (a, c, m) after the positions before.

    Returns:
        o (..., T, d), and (a, c, m) after the last of these positions.
    """
    a, c, m = state
    spread = _spread(scores)  # (..., T, T)
    maxima = torch.maximum(spread.amax(-1), m[..., None])  # (..., T)
    weights, old = (spread - maxima[..., None]).exp(), (m[..., None] - maxima).exp()
    sums = weights @ values + old[..., None] * a[..., None, :]  # (..., T, d)
    totals = weights.sum(-1) + old * c[..., None]  # (..., T)
    return sums / totals[..., None], (sums[..., -1, :], totals[..., -1], maxima[..., -1])


def _spread(scores: Tensor) -> Tensor:
    """(..., N) -> (..., N, N): row k has the scores up to k, and that of nothing behind."""
    places = torch.arange(scores.shape[-1], device=scores.device)
    seen = places <= places[:, None]  # (N, N)
    return torch.where(seen, scores[..., None, :], nothing(scores.dtype))


def parallel(scores: Tensor, values: Tensor) -> Tensor:
    """The same in time and memory proportional to N, all positions at once, with a backward pass of the same kind.

    A prefix scan of the associative operator (m, u, w) + (m', u', w') = (M, u e^(m-M) + u' e^(m'-M), w e^(m-M) +
    w' e^(m'-M)) with M = max(m, m'), on `BLOCK` elements at a time: in a block it is one product with a triangular
    matrix of weights; the sums of the blocks are scanned in the same way, and added to the blocks behind.

    Half precision is computed in float32. There are no second derivatives.

    Args:
        scores: s (..., N).
        values: v (..., N, d), the leading axes as in `scores`.

    Returns:
        o (..., N, d), in the type of `values`.
    """
    dtype = working_type(scores, values)
    shape = values.shape
    if not values.numel():
        return values
    flat = values.to(dtype).reshape(-1, *shape[-2:])  # (G, N, d)
    apply: Callable[[Tensor, Tensor], Tensor] = _Parallel.apply  # typed in some releases of PyTorch only
    output = apply(scores.to(dtype).reshape(flat.shape[:2]), flat)
    return output.reshape(shape).to(values.dtype)


class _Parallel(torch.autograd.Function):
    r"""Forward: prefix sums. Backward: suffix sums.

    With weights :math:`p_{ki} = e^{s_i - m_k} / u_k` and gradients :math:`g_k` of the outputs,
    :math:`\partial v_i = \sum_{k \ge i} p_{ki} g_k` and
    :math:`\partial s_i = \partial v_i \cdot v_i - \sum_{k \ge i} p_{ki} (g_k \cdot o_k)`.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, values: Tensor) -> Tensor:
        """(G, N) and (G, N, d) -> (G, N, d)."""
        with torch.autocast(values.device.type, enabled=False):
            maxima = scores.cummax(-1).values.clamp_(min=start(scores.dtype))  # (G, N)
            sums, totals = _prefix(scores, maxima, values, None)
            inverse = totals.clamp_(min=1.0).reciprocal_()  # (G, N)
            output = sums.mul_(inverse[..., None])
        ctx.save_for_backward(scores, values, maxima, inverse, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(G, N, d) -> (G, N) and (G, N, d)."""
        scores, values, maxima, inverse, output = ctx.saved_tensors
        with torch.autocast(values.device.type, enabled=False):
            scaled = gradient * inverse[..., None]
            along = (scaled * output).sum(-1)  # (G, N)
            of_values, of_outputs = _suffix(scores, maxima, scaled, along)
            of_scores = (of_values * values).sum(-1).sub_(of_outputs)
        return of_scores, of_values


def _prefix(scores: Tensor, maxima: Tensor, w: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums over i <= k of e^(s_i - m_k) (w_i, u_i), for s, m (G, N), m >= the running maximum of s and not falling.

    Args:
        scores: s.
        maxima: m.
        w: (G, N, d).
        u: (G, N); all of them 1 where None.

    Returns:
        (G, N, d) and (G, N).
    """
    length = scores.shape[-1]
    scores, maxima = _blocks(scores, nothing(scores.dtype)), _blocks(maxima, None)  # (G, C, b)
    weights = _weights(scores, maxima)  # (G, C, b, b)
    sums = weights @ _blocks(w, 0.0)  # (G, C, b, d)
    totals = weights.sum(-1) if u is None else (weights @ _blocks(u, 0.0)[..., None])[..., 0]
    if scores.shape[1] > 1:
        last = maxima[..., -1]  # (G, C)
        before_w, before_u = _prefix(last, last, sums[..., -1, :], totals[..., -1])
        kept = (last[:, :-1, None] - maxima[:, 1:]).exp_()  # (G, C - 1, b)
        sums[:, 1:].addcmul_(kept[..., None], before_w[:, :-1, None])
        totals[:, 1:].addcmul_(kept, before_u[:, :-1, None])
    return sums.flatten(1, 2)[:, :length], totals.flatten(1, 2)[:, :length]


def _suffix(scores: Tensor, maxima: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over k >= i of e^(s_i - m_k) (x_k, y_k): the transpose of `_prefix`.

    Args:
        scores: s (G, N).
        maxima: m (G, N).
        x: (G, N, d).
        y: (G, N).

    Returns:
        (G, N, d) and (G, N).
    """
    length = scores.shape[-1]
    scores, maxima = _blocks(scores, nothing(scores.dtype)), _blocks(maxima, None)  # (G, C, b)
    x, y = _blocks(x, 0.0), _blocks(y, 0.0)
    weights = _weights(scores, maxima).transpose(-2, -1)  # (G, C, b, b)
    sums, totals = weights @ x, (weights @ y[..., None])[..., 0]
    if scores.shape[1] > 1:
        first = maxima[..., 0]  # (G, C): the least of the block
        shares = (first[..., None] - maxima).exp_()[..., None, :]  # (G, C, 1, b)
        behind_x, behind_y = _suffix(first, first, (shares @ x)[..., 0, :], (shares @ y[..., None])[..., 0, 0])
        reached = (scores[:, :-1] - first[:, 1:, None]).exp_()  # (G, C - 1, b)
        sums[:, :-1].addcmul_(reached[..., None], behind_x[:, 1:, None])
        totals[:, :-1].addcmul_(reached, behind_y[:, 1:, None])
    return sums.flatten(1, 2)[:, :length], totals.flatten(1, 2)[:, :length]


def _weights(scores: Tensor, maxima: Tensor) -> Tensor:
    """e^(s_i - m_k) for i <= k and 0 for i > k: (..., b) and (..., b) -> (..., k, i)."""
    exponents = scores[..., None, :] - maxima[..., :, None]
    weights: Tensor = exponents.clamp_(max=0.0).exp_().tril_()
    return weights  # above the diagonal an exponent may be positive


def _blocks(x: Tensor, fill: float | None) -> Tensor:
    """(G, N, ...) -> (G, C, b, ...), `fill` behind the end, or what is last where that is None; b <= `BLOCK`."""
    length = x.shape[1]
    size = min(BLOCK, length)
    missing = -length % size
    if missing:
        tail = x[:, -1:] if fill is None else x.new_full((1,) * x.dim(), fill)
        x = torch.cat([x, tail.expand(x.shape[0], missing, *x.shape[2:])], 1)
    blocks: Tensor = x.unflatten(1, (-1, size))
    return blocks

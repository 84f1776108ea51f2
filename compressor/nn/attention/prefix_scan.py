"""Attention of one query over every prefix of a sequence, all positions at once: the form for training.

Source and formulas: `compressor.nn.attention.prefix`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressor.nn.attention.prefix import nothing, start, working_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.autograd.function import FunctionCtx

BLOCK = 64
"""Positions in a block of `parallel`: its cost is that of N * BLOCK weights, plus that of N / BLOCK positions."""


def parallel(scores: Tensor, values: Tensor) -> Tensor:
    """Output o in time and memory proportional to N, with a backward pass of the same kind.

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
    apply: Callable[[Tensor, Tensor], Tensor] = _Scan.apply  # typed in some releases of PyTorch only
    output = apply(scores.to(dtype).reshape(flat.shape[:2]), flat)
    return output.reshape(shape).to(values.dtype)


class _Scan(torch.autograd.Function):
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
        u: (G, N); all of them 1 if None.

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
    """(G, N, ...) -> (G, C, b, ...), `fill` behind the end, or what is last if that is None; b <= `BLOCK`."""
    length = x.shape[1]
    size = min(BLOCK, length)
    missing = -length % size
    if missing:
        tail = x[:, -1:] if fill is None else x.new_full((1,) * x.dim(), fill)
        x = torch.cat([x, tail.expand(x.shape[0], missing, *x.shape[2:])], 1)
    blocks: Tensor = x.unflatten(1, (-1, size))
    return blocks

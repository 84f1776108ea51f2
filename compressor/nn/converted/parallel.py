r"""Solves a nonlinear recurrence for all positions at once, by Newton's method and a parallel reduction.

A recurrence :math:`h_t = f(h_{t-1}, x_t)` for t = 1..T is a system of T equations. Newton's method solves it: with the
residuals :math:`r_t = f(h_{t-1}, x_t) - h_t` and the Jacobians :math:`J_t = \partial f / \partial h_{t-1}`, the
correction is the linear recurrence :math:`\delta_t = J_t \delta_{t-1} + r_t`, which is computed in blocks. If units do
not mix, J is diagonal, or has a small block for each unit.

The gradients take no iteration: they are the linear recurrence :math:`\lambda_t = J_{t+1}^T \lambda_{t+1} + g_t`
backward in time.

Source: ParaRNN, arXiv 2510.21450, section 3. Shapes: T positions, B samples, S states a unit, N units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    Update = Callable[[Tensor], tuple[Tensor, Tensor]]
    """The states before every position (T, B, S, N) -> those after it, and J (T, B, S, S, N)."""

MOST_ITERATIONS = 8
"""After so many the positions are computed one after the other."""
_CPU_BLOCK, _ACCELERATOR_BLOCK = 32, 4
"""Positions that are gone through one by one in all blocks at once: few passes over memory, or few steps."""


class Solved(NamedTuple):
    """What Newton's method found."""

    states: Tensor
    """(T, B, S, N), without gradients."""
    residual: float
    """Largest magnitude of the last correction."""
    iterations: int


def linear_recurrence(jacobians: Tensor, added: Tensor, block: int | None = None) -> Tensor:
    """All of d_t = J_t d_{t-1} + r_t, with d_0 = 0.

    Args:
        jacobians: J (T, B, S, S, N).
        added: r (T, B, S, N).
        block: Positions that are gone through one by one; chosen for the device if it is None.

    Returns:
        (T, B, S, N).
    """
    size = block or (_CPU_BLOCK if added.device.type == "cpu" else _ACCELERATOR_BLOCK)
    length, batch = added.shape[:2]
    if length <= size:
        sums = [added[0]]
        for jacobian, more in zip(jacobians[1:], added[1:], strict=True):
            sums.append(_apply(jacobian, sums[-1]) + more)
        return torch.stack(sums)
    blocks = -(-length // size)
    parts, inside = _in_blocks(_blocked(jacobians, blocks, size), _blocked(added, blocks, size))
    last, gathered = (part[-1].unflatten(0, (blocks, batch)) for part in (parts, inside))
    entering = shifted(linear_recurrence(last, gathered, size)).flatten(0, 1)  # what each block starts from
    complete = inside + _apply(parts, entering.expand_as(inside))
    whole: Tensor = complete.unflatten(1, (blocks, batch)).transpose(0, 1).flatten(0, 1)[:length]
    return whole


def solve(update: Update, first: Tensor, tolerance: float, most: int = MOST_ITERATIONS) -> Solved:
    """The states after every position, by Newton's method from `first`.

    Args:
        update: See `Update`; position t must depend on position t of its argument only.
        first: The initial guess (T, B, S, N), such as f(0, x_t).
        tolerance: Of the corrections; the error behind the last one is of the order of its square.
        most: Iterations.
    """
    states, residual = first, float("inf")
    with torch.no_grad():
        for iteration in range(1, most + 1):
            after, jacobians = update(shifted(states))
            correction = linear_recurrence(jacobians, after - states)
            states = states + correction
            residual = float(correction.abs().max())
            if residual <= tolerance:
                return Solved(states, residual, iteration)
    return Solved(states, residual, most)


def with_gradients(after: Tensor, jacobians: Tensor) -> Tensor:
    """The states `after` (T, B, S, N) as they are, whose gradients go back through all earlier positions.

    Args:
        after: f(h_{t-1}, x_t), computed from solved states that have no gradients.
        jacobians: J there.
    """
    result: Tensor = _Adjoint.apply(after, jacobians)
    return result


def shifted(states: Tensor) -> Tensor:
    """The states before every position, zeros before the first."""
    return torch.cat([torch.zeros_like(states[:1]), states[:-1]])


class _Adjoint(torch.autograd.Function):
    """Identity; its gradient is that of the whole recurrence."""

    @staticmethod
    def forward(ctx: Any, after: Tensor, jacobians: Tensor) -> Tensor:
        ctx.save_for_backward(jacobians)
        return after.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        [jacobians] = ctx.saved_tensors
        later = torch.cat([jacobians[1:], torch.zeros_like(jacobians[:1])])
        backward = later.transpose(2, 3).flip(0)  # J_{t+1}^T, the last position first
        return linear_recurrence(backward, gradient.flip(0)).flip(0), None


def _blocked(part: Tensor, blocks: int, size: int) -> Tensor:
    """(T, B, ...) as (size, blocks * B, ...): position i of all blocks at once, zeros behind the last one."""
    rest = blocks * size - part.shape[0]
    if rest:
        part = torch.cat([part, part.new_zeros(rest, *part.shape[1:])])
    blocked: Tensor = part.unflatten(0, (blocks, size)).transpose(0, 1).flatten(1, 2)
    return blocked


def _in_blocks(jacobians: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """J_t ... J_1 and d_t of every block from zeros, one position after the other."""
    products, sums = [jacobians[0]], [added[0]]
    for jacobian, more in zip(jacobians[1:], added[1:], strict=True):
        sums.append(_apply(jacobian, sums[-1]) + more)
        products.append(_compose(jacobian, products[-1]))
    return torch.stack(products), torch.stack(sums)


def _apply(jacobians: Tensor, states: Tensor) -> Tensor:
    """J (..., S, S, N) times (..., S, N)."""
    if states.shape[-2] == 1:
        return jacobians[..., 0, :] * states
    return (jacobians * states.unsqueeze(-3)).sum(-2)


def _compose(later: Tensor, earlier: Tensor) -> Tensor:
    """The product of two J (..., S, S, N)."""
    if later.shape[-2] == 1:
        return later * earlier
    return (later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3)

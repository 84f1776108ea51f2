r"""A dense A, one for all channels, from HiPPO-LegS on: s is the history of a channel in Legendre polynomials.

HiPPO-LegS of N numbers, n and k from 0 on:

.. math::
    A_{nk} = -\begin{cases} \sqrt{(2n+1)(2k+1)} & n > k \\ n + 1 & n = k \\ 0 & n < k \end{cases}, \quad
    B_n = \sqrt{2n+1}

Sampled by the bilinear rule (the generalised bilinear transform at 1/2), for each channel with a dt of its own:
:math:`\bar A = (I - \tfrac{dt}{2} A)^{-1} (I + \tfrac{dt}{2} A)`, :math:`\bar B = (I - \tfrac{dt}{2} A)^{-1} dt\, B`.

A is trained as :math:`W - W^T - \tfrac12 (\mathrm{diag}(e^\alpha) + q q^T)`. HiPPO-LegS is of this form, with q = B and
:math:`\alpha = 0`, since :math:`A + A^T = -I - B B^T`. The symmetric part is negative whatever W (which is 0 but
below the diagonal), alpha and q are, so no state ever grows, and :math:`I - \tfrac{dt}{2} A` can always be inverted,
without pivots.

Source: LSSL, arXiv 2110.13985, sections 3 and 4; HiPPO, arXiv 2008.07669, theorem 2. That HiPPO-LegS has the form is in
S4, arXiv 2111.00396, appendix C; one A for all channels, and to keep the form in training, are ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.attention.prefix import working_type
from compressor.nn.converted.layer import is_traced
from compressor.nn.converted.state_system import StateSystem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions

BITS = 16
"""A file of open length computes the first 2**BITS numbers of the kernel; what came earlier counts nothing."""


def hippo_legs(size: int) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,) of HiPPO-LegS, in float64."""
    roots = torch.sqrt(2.0 * torch.arange(size, dtype=torch.float64) + 1.0)
    below = torch.tril(torch.outer(roots, roots), -1)
    return -(below + torch.diag(torch.arange(size, dtype=torch.float64) + 1.0)), roots


class DenseSystem(StateSystem):
    """`turn` (N (N - 1) / 2,) has W row by row; alpha, q and B are `log_decay`, `damp` and `enter` (N,), C is `mix`."""

    def __init__(self, channels: int, size: int, factory: FactoryOptions) -> None:
        """N = `size`, from HiPPO-LegS on."""
        super().__init__(channels, factory)
        self.mix = nn.Parameter(torch.randn(channels, size, **factory) / math.sqrt(size))
        a, b = (part.to(self.mix) for part in hippo_legs(size))
        self.turn = nn.Parameter((a + 0.5 * torch.outer(b, b))[_below(size)])
        self._places = _places(size)
        self.log_decay = nn.Parameter(torch.zeros(size, **factory))
        self.damp, self.enter = nn.Parameter(b), nn.Parameter(b.clone())

    def matrix(self) -> Tensor:
        """A (N, N)."""
        damping = torch.diag_embed(torch.exp(self.log_decay)) + self.damp[:, None] * self.damp
        return self._skew() - 0.5 * damping

    def _skew(self) -> Tensor:
        """W - W^T (N, N), with no transpose of a weight, which a file would keep in both forms."""
        device = self.turn.device
        off_diagonal = 1.0 - torch.eye(len(self.damp), dtype=self.turn.dtype, device=device)
        return torch.cat([self.turn, -self.turn])[torch.tensor(self._places, device=device)] * off_diagonal

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """The only part, s (1, P, N)."""
        return [("s", self.mix.new_zeros(1, *self.mix.shape))]

    def sampled(self, scale: float) -> tuple[Tensor, ...]:
        """A (P, N, N) and B (P, N)."""
        dtype = working_type(self.turn)
        steps, one = self._steps(scale).to(dtype)[:, None], torch.eye(len(self.damp), dtype=dtype)
        one = one.to(self.turn.device)
        inverse = inverted(one - 0.5 * steps[:, :, None] * self.matrix().to(dtype))
        b = steps * (inverse * self.enter.to(dtype)).sum(-1)
        return (2.0 * inverse - one).to(self.turn.dtype), b.to(self.turn.dtype)

    def advance(
        self, u: Tensor, states: Sequence[Tensor], sampled: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `StateSystem`. A is no matrix product's weight: rounding leaves it as it is, its poles are near 1."""
        (s,), (a, b) = states, sampled
        s = (a * s.unsqueeze(-2)).sum(-1) + b * u.unsqueeze(-1)  # (B, P, N)
        return (self.mix * s).sum(-1), (s,)

    def pulse_response(self, length: int, scale: float) -> Tensor:
        """See `StateSystem`."""
        a, b = self.sampled(scale)
        powers = _powers_in_a_file if is_traced() else _powers
        return (powers(a.transpose(1, 2), b[:, None], length) * self.mix[:, None]).sum(-1)

    def restart(self, generator: torch.Generator) -> None:
        """See `StateSystem`."""
        mix = torch.randn(self.mix.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.mix.copy_(mix / math.sqrt(self.mix.shape[1]))


def _below(size: int) -> tuple[list[int], list[int]]:
    """Rows and columns of what lies below the diagonal, row by row."""
    places = [(row, column) for row in range(size) for column in range(row)]
    return [row for row, _ in places], [column for _, column in places]


def _places(size: int) -> list[list[int]]:
    """For each row and column, which number of W or, behind all of these, of -W stands there; any on the diagonal."""
    below = {place: number for number, place in enumerate(zip(*_below(size), strict=True))}
    above = {(column, row): number + len(below) for (row, column), number in below.items()}
    every = below | above
    return [[every.get((row, column), 0) for column in range(size)] for row in range(size)]


def _powers(a: Tensor, b: Tensor, length: int) -> Tensor:
    """Rows b a^i for i < length, (P, T, N), of a (P, N, N) and b (P, 1, N), by doubling."""
    while b.shape[1] < length:
        b, a = torch.cat([b, b @ a], 1), a @ a
    return b[:, :length]


def _powers_in_a_file(a: Tensor, b: Tensor, length: int) -> Tensor:
    """The same for a length that is open: position i is multiplied by a^(2^j) for each bit j of i."""
    ages = torch.arange(length, dtype=a.dtype, device=a.device)
    row = b.expand(-1, length, -1)
    for bit in range(BITS):
        halves = torch.floor(ages * 0.5 ** (bit + 1))
        is_set = torch.floor(ages * 0.5**bit) - 2.0 * halves > 0.5  # (T,)
        row = torch.where(is_set[:, None], row @ a, row)
        # A square that no position needs is 0. So it depends on the length, and a file does not store 16 of them.
        a = a @ (a * (halves[-1:] > 0.5).to(a.dtype))
    return row * (ages < 2.0**BITS).to(a.dtype)[:, None]


def inverted(matrix: Tensor) -> Tensor:
    """The inverse of matrices (..., N, N) whose symmetric part is positive, of plain operations in a file."""
    if is_traced():
        return eliminated(matrix)
    inverse: Tensor = torch.linalg.inv(matrix)
    return inverse


def eliminated(matrix: Tensor) -> Tensor:
    """The inverse by Gauss-Jordan elimination in place; without pivots, so the symmetric part has to be positive."""
    size = matrix.shape[-1]
    axes = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    for at in range(size):
        pivot = 1.0 / matrix[..., at, at, None]
        row = matrix[..., at, :] * pivot + pivot * axes[at]
        matrix = matrix - (matrix[..., :, at] - axes[at]).unsqueeze(-1) * row.unsqueeze(-2)
    return matrix

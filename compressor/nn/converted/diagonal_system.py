r"""A diagonal A: K damped oscillators a channel, with real numbers only.

.. math::
    \dot s_k = \lambda_k s_k + u, \quad y = 2\,\mathrm{Re} \sum_k C_k s_k + D u, \quad
    \lambda_k = -e^{\alpha_k} + i \omega_k

sampled by :math:`\bar A = (1 + \tfrac{dt}{2} \lambda) / (1 - \tfrac{dt}{2} \lambda)` and
:math:`\bar B = dt / (1 - \tfrac{dt}{2} \lambda)`. No oscillator grows, whatever its parameters.

Source: from :math:`\lambda_k = -1/2 + i \pi k` on: S4D-Lin, arXiv 2206.11893, section 4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.converted.state_system import StateSystem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions


class DiagonalSystem(StateSystem):
    """`log_decay` and `frequency` (P, K) are alpha and omega, `mix` (2, P, K) the parts of C."""

    def __init__(self, channels: int, oscillators: int, factory: FactoryOptions) -> None:
        """K = `oscillators`."""
        super().__init__(channels, factory)
        self.log_decay = nn.Parameter(torch.full((channels, oscillators), math.log(0.5), **factory))
        frequencies = math.pi * torch.arange(oscillators, dtype=torch.float32)
        self.frequency = nn.Parameter(frequencies.to(**factory).repeat(channels, 1))
        self.mix = nn.Parameter(torch.randn(2, channels, oscillators, **factory) / math.sqrt(oscillators))

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Real and imaginary parts of s, (1, P, K) each."""
        zeros = self.mix.new_zeros(1, *self.frequency.shape)
        return [("real", zeros), ("imaginary", zeros)]

    def sampled(self, scale: float) -> tuple[Tensor, ...]:
        """Real and imaginary parts of A and of B, (P, K) each."""
        size, angle = self._polar(scale)
        return (torch.exp(size) * torch.cos(angle), torch.exp(size) * torch.sin(angle), *self._entering(scale))

    def advance(
        self, u: Tensor, states: Sequence[Tensor], sampled: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `StateSystem`."""
        a_real, a_imaginary, b_real, b_imaginary = sampled
        c_real, c_imaginary = self.mix.unbind(0)
        real, imaginary = states
        entering = u.unsqueeze(-1)  # (B, P, 1)
        real, imaginary = (
            a_real * real - a_imaginary * imaginary + b_real * entering,
            a_imaginary * real + a_real * imaginary + b_imaginary * entering,
        )
        return 2.0 * (c_real * real - c_imaginary * imaginary).sum(-1), (real, imaginary)

    def pulse_response(self, length: int, scale: float) -> Tensor:
        """See `StateSystem`: waves, of plain operations at any length."""
        (size, angle), (b_real, b_imaginary) = self._polar(scale), self._entering(scale)
        c_real, c_imaginary = self.mix.unbind(0)
        real = c_real * b_real - c_imaginary * b_imaginary  # C times B
        imaginary = c_real * b_imaginary + c_imaginary * b_real
        ages = torch.arange(length, dtype=size.dtype, device=size.device)[:, None, None]  # (T, 1, 1)
        waves = torch.exp(ages * size) * (real * torch.cos(ages * angle) - imaginary * torch.sin(ages * angle))
        return 2.0 * waves.sum(-1).T

    def restart(self, generator: torch.Generator) -> None:
        """See `StateSystem`."""
        mix = torch.randn(self.mix.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.mix.copy_(mix / math.sqrt(self.frequency.shape[1]))

    def _half_step(self, scale: float) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of dt / 2 times lambda, (P, K) each."""
        half = 0.5 * self._steps(scale)[:, None]
        return -half * torch.exp(self.log_decay), half * self.frequency

    def _polar(self, scale: float) -> tuple[Tensor, Tensor]:
        """Logarithm of the magnitude and angle of A, (P, K) each."""
        real, imaginary = self._half_step(scale)
        above, below = (1.0 + real).square() + imaginary.square(), (1.0 - real).square() + imaginary.square()
        angle = torch.atan2(2.0 * imaginary, 1.0 - real.square() - imaginary.square())
        return 0.5 * torch.log(above / below), angle

    def _entering(self, scale: float) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of B, (P, K) each."""
        real, imaginary = self._half_step(scale)
        step = self._steps(scale)[:, None]
        below = (1.0 - real).square() + imaginary.square()
        return step * (1.0 - real) / below, step * imaginary / below

r"""Linear systems with a memory cache: each segment has a state of its own.

A linear system gives the sum of what it gives for each segment alone. With :math:`s_{ti}` the state that the inputs of
segment i left at t, and its gate g, output t of a channel is

.. math::
    y_t = \sum_i \gamma_{ti}\, C s_{ti} + D u_t, \quad
    \gamma_{ti} = (S + 2)\, \frac{e^{g_{ti}}}{\sum_j e^{g_{tj}}}

over the running segment, the S slots, filled or not, and what came earlier. All :math:`\gamma` are 1 if the gate is 0.
Source: see `MemoryCache`; the softmax is the source's, the factor S + 2 is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.nn.attention import prefix
from compressor.nn.memory_cache import MemoryCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.nn.converted.state_system import StateSystem


class CachedSystem(MemoryCache):
    """Of P channels and one gate; every part of s is (B, S + 2, P, ...)."""

    axis = 1

    def whole(self, x: Tensor, channels: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """All positions at once: the system answers each segment by itself.

        Args:
            x: (B, T, I).
            channels: u (B, P, T).
            answer: Of the system without D: (B, P, T, n) -> the same.

        Returns:
            What y is without D u, (B, P, T).
        """
        behind = self._behind(x)  # (T, n)
        apart = channels.unsqueeze(-1) * (behind == 0).to(channels.dtype)  # (B, P, T, n)
        return (answer(apart) * self._shares(x, behind).to(channels.dtype)).sum(-1)

    def step(
        self, x: Tensor, channels: Tensor, states: Sequence[Tensor], system: StateSystem, sampled: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The next positions, one after the other.

        Args:
            x: (B, n, I).
            channels: u (B, n, P).
            states: Before them.
            system: What is sampled.
            sampled: See `StateSystem`.

        Returns:
            y (B, n, P) and the new states.
        """
        places = self.slots + 2
        running = (torch.arange(places, device=x.device) == places - 1).to(channels.dtype)[:, None]  # (S + 2, 1)

        def advance(place: int, now: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            u = channels[:, place]  # (B, P)
            answers, new = system.advance(u.unsqueeze(1) * running, now[:-2], sampled)  # (B, S + 2, P)
            gates = self.gates(x[:, place : place + 1], now)
            logits = torch.cat([gates.slots, gates.running.unsqueeze(2)], 2).squeeze(1)  # (B, S + 2, 1)
            shares = float(places) * torch.softmax(logits, 1).to(answers.dtype)
            return (shares * answers).sum(1) + system.skip * u, [*new, *self.counted(now, gates, 1)]

        outputs, after = self.one_by_one(x.shape[1], states, advance)
        return torch.stack(outputs, 1), after

    def initial_states(self, system: StateSystem) -> list[tuple[str, Tensor]]:
        """Name and value (1, ...) of each state before the first position."""
        parts = system.initial_states()
        memory = [(name, torch.stack([part] * (self.slots + 2), 1)) for name, part in parts]
        return [*memory, *self._first_counts(parts[0][1])]

    def _merged(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        return [one + other for one, other in zip(first, second, strict=True)]

    def _empty(self, like: list[Tensor]) -> list[Tensor]:
        return [torch.zeros_like(part) for part in like]

    def _behind(self, x: Tensor) -> Tensor:
        """By how many segments each of n segments lies before each position (T, n); below 0: it comes later."""
        places = torch.arange(x.shape[1], dtype=prefix.working_type(x), device=x.device)
        segments = torch.floor(places / self.segment)
        return segments[:, None] - segments[:: self.segment]

    def _shares(self, x: Tensor, behind: Tensor) -> Tensor:
        """Gamma of each segment at each position, (B, 1, T, n)."""
        gates = self.all_gates(x)[..., :: self.segment]  # (B, 1, T, n)
        logits = torch.where(behind >= 0, gates, prefix.nothing(gates.dtype))
        largest = logits.amax(-1, keepdim=True).clamp(min=0.0)
        weights = torch.exp(logits - largest)
        apart = ((behind >= 0) & (behind <= self.slots)).to(weights.dtype)  # in a place of its own
        rest = float(self.slots + 2) - apart.sum(-1, keepdim=True)  # empty places, and what came earlier
        total = (weights * apart).sum(-1, keepdim=True) + rest * torch.exp(-largest)
        return float(self.slots + 2) * weights / total

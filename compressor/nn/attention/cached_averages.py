r"""Running averages (`prefix`) with a memory cache: each segment has an average of its own.

With (a_i, c_i, m_i) the state of segment i and its gate g, output t is

.. math::
    o_t = \frac{\sum_i e^{m_{ti} + g_{ti}} a_{ti}}{\sum_i e^{m_{ti} + g_{ti}} c_{ti}}

In the source (see `MemoryCache`) the gate is a softmax over all segments and the memories are sums; the averages here
are softmaxes themselves, so the gate joins their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.nn.attention import prefix
from compressor.nn.converted.layer import is_traced
from compressor.nn.memory_cache import MemoryCache

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 128
"""Positions up to which training computes all weights, which is much faster if segments are short."""
MEMORY = ("sums", "weights", "largest")
"""Names of a, c and m."""
STATES = (*MEMORY, "described", "count")
"""Names of all states."""


class CachedAverages(MemoryCache):
    """Of h heads with k averages each; the memory is a (B, h, k, S + 2, d), c and m (B, h, k, S + 2)."""

    axis = 3

    def forward(
        self, x: Tensor, scores: Tensor, values: Tensor, fade: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """A whole sequence: `by_segments`, or `whole` if it is short, or a model is traced or exported."""
        at_once = is_traced() or x.shape[1] <= AT_ONCE
        return (self.whole if at_once else self.by_segments)(x, scores, values, fade, valid)

    def whole(
        self, x: Tensor, scores: Tensor, values: Tensor, fade: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """All positions at once, of plain operations: the form of whole-sequence files.

        Args:
            x: (B, T, I).
            scores: s (B, h, k, T).
            values: v (B, h, 1, T, d), or with k in place of 1.
            fade: As in `prefix`, (h, k).
            valid: (B, T, 1), 0 where a position is passed over, which its score has to say too.

        Returns:
            o (B, h, k, T, d).
        """
        return prefix.whole(scores, values, fade, self.all_gates(x, valid).unsqueeze(2))

    def by_segments(
        self, x: Tensor, scores: Tensor, values: Tensor, fade: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """The same segment by segment, in memory proportional to T: the form of training."""
        states = [value.expand(len(x), *value.shape[1:]) for _, value in self.initial_states(scores, values)]
        outputs = []
        for start in range(0, x.shape[1], self.segment):
            part = slice(start, start + self.segment)
            if start:
                states = self.moved_on(states)
            after = prefix.trajectory(scores[..., part], values[..., part, :], _running(states), fade)
            shown = None if valid is None else valid[:, part]
            output, states = self._advance(x[:, part], after, states, fade, shown)
            outputs.append(output)
        return torch.cat(outputs, -2)

    def step(
        self, x: Tensor, scores: Tensor, values: Tensor, states: Sequence[Tensor], fade: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The next positions, one after the other; arguments as in `whole`, and the states before them."""

        def advance(place: int, now: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            a, c, m = prefix.next_state(scores[..., place], values[..., place, :], _running(now), fade)
            after = (a.unsqueeze(-2), c.unsqueeze(-1), m.unsqueeze(-1))
            return self._advance(x[:, place : place + 1], after, now, fade, None)

        outputs, new = self.one_by_one(x.shape[1], states, advance)
        return torch.cat(outputs, -2), new

    def initial_states(self, scores: Tensor, values: Tensor) -> list[tuple[str, Tensor]]:
        """Name and value (1, ...) of each state before the first position; see `STATES`."""
        shape = (1, *scores.shape[1:3], self.slots + 2)
        memory = prefix.initial_state(shape, values.shape[-1], dtype=scores.dtype, device=scores.device)
        return [*zip(MEMORY, memory, strict=True), *self._first_counts(scores)]

    def _advance(
        self, x: Tensor, after: prefix.State, states: Sequence[Tensor], fade: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The outputs of n positions within a segment, and the states after them.

        Args:
            x: (B, n, I).
            after: (a, c, m) of the running segment after each position, (B, h, k, n, d) and (B, h, k, n).
            states: Before them.
            fade: As in `whole`.
            valid: The same.
        """
        a, c, m = states[:3]
        gates = self.gates(x, states, valid)
        shown = faded = m[..., :-1]  # (B, h, k, S + 1), of the outputs with n behind
        if fade is None:
            shown = shown.unsqueeze(-1)
        else:
            ages = torch.arange(x.shape[1], dtype=m.dtype, device=x.device) + 1.0  # (n,)
            shown = shown.unsqueeze(-1) - fade[..., None, None] * ages
            faded = faded - fade[..., None] * float(x.shape[1])
        earlier = (a[..., :-1, :], c[..., :-1], shown + gates.slots.unsqueeze(2))
        output = _read(earlier, (after[0], after[1], after[2] + gates.running.unsqueeze(2)))
        new = [
            torch.cat([a[..., :-1, :], after[0][..., -1:, :]], -2),
            torch.cat([c[..., :-1], after[1][..., -1:]], -1),
            torch.cat([faded, after[2][..., -1:]], -1),
        ]
        return output, [*new, *self.counted(states, gates, x.shape[1])]

    def _merged(self, first: list[Tensor], second: list[Tensor]) -> prefix.State:
        return prefix.merged((first[0], first[1], first[2]), (second[0], second[1], second[2]))

    def _empty(self, like: list[Tensor]) -> prefix.State:
        a, c, _ = like
        return prefix.initial_state(tuple(c.shape), a.shape[-1], dtype=a.dtype, device=a.device)


def _running(states: Sequence[Tensor]) -> prefix.State:
    """The average of the running segment."""
    a, c, m = states[:3]
    return a[..., -1, :], c[..., -1], m[..., -1]


def _read(earlier: prefix.State, now: prefix.State) -> Tensor:
    """The outputs (..., n, d) of averages (..., S + 1, ...), m with n behind, and the running one at n positions."""
    (a, c, m), (a_now, c_now, m_now) = earlier, now
    largest = torch.maximum(m.amax(-2), m_now)  # (..., n)
    old, new = torch.exp(m - largest.unsqueeze(-2)), torch.exp(m_now - largest)  # (..., S + 1, n), (..., n)
    sums = old.transpose(-1, -2) @ a + new.unsqueeze(-1) * a_now
    totals = (old * c.unsqueeze(-1)).sum(-2) + new * c_now
    return sums / totals.clamp(min=1.0).unsqueeze(-1)  # >= 1 as soon as there is something

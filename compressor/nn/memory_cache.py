r"""A memory cache: running averages of segments of a sequence, read by a gate that the input decides on.

A layer that keeps a running average (`compressor.nn.attention.prefix`) over all positions keeps S + 2 of them instead:
of the segment of C positions that it is in, of the S segments before it (slots), and of whatever came earlier. With
(a_i, c_i, m_i) the state of each and a gate g, output t is

.. math::
    o_t = \frac{\sum_i e^{m_{ti} + g_{ti}} a_{ti}}{\sum_i e^{m_{ti} + g_{ti}} c_{ti}}, \quad
    g_{ti} = u_t \cdot \bar\kappa_i, \quad g_{t,\mathrm{earlier}} = 0

where u and :math:`\kappa` are linear in the input and :math:`\bar\kappa_i` is the mean of :math:`\kappa` over segment
i, of the running one so far. A segment that ends moves into the newest slot, and the oldest slot is added to what came
earlier, exactly: so nothing is lost, the state does not grow, and with a gate of 0 the layer computes what it computes
without a cache. That is where training starts.

Source: Memory Caching, arXiv 2602.24281 (gated residual memory). There the gate is a softmax over all segments and the
memories are sums; the averages here are softmaxes themselves, so the gate joins their weights. A fixed number of slots,
and the sum of what came earlier, are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.attention import prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions

_WIDEST = 16
NAMES = ("sums", "weights", "largest", "described", "count")
"""Of the states: (a, c, m) of what came earlier, the slots and the running segment; sums of kappa; positions of it."""


class MemoryCache(nn.Module):
    """Gates of h heads over S slots of C positions: `ask` gives u, `describe` gives kappa."""

    def __init__(self, inputs: int, heads: int, slots: int, segment: int, factory: FactoryOptions) -> None:
        """A gate of 0.

        Args:
            inputs: I.
            heads: h, each with a gate of its own.
            slots: S.
            segment: C.
            factory: Device and type of the weights.
        """
        super().__init__()
        self.heads, self.slots, self.segment = heads, slots, segment
        self.width = min(inputs, _WIDEST)
        self.ask = nn.Linear(inputs, heads * self.width, **factory)
        self.describe = nn.Linear(inputs, self.width, **factory)
        nn.init.zeros_(self.ask.weight)
        nn.init.zeros_(self.ask.bias)

    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """A gate of 0, and kappa random mixtures of inputs x (N, I) of unit variance, in place."""
        x = x.cpu().double()
        rows = torch.randn(self.width, x.shape[1], generator=generator, dtype=torch.float64)
        rows = rows / rows.norm(dim=1, keepdim=True) / x.std(0, unbiased=False).clamp_min(1e-6)
        with torch.no_grad():
            for weight in self.ask.parameters():
                weight.zero_()
            self.describe.weight.copy_(rows)
            self.describe.bias.copy_(-rows @ x.mean(0))

    def whole(self, x: Tensor, scores: Tensor, values: Tensor, fade: Tensor | None) -> Tensor:
        """All positions at once, of plain operations: the form of whole-sequence files.

        Args:
            x: (B, T, I).
            scores: s (B, h, k, T).
            values: v (B, h, 1, T, d), or with k in place of 1.
            fade: As in `prefix`, (h, k).

        Returns:
            o (B, h, k, T, d).
        """
        return prefix.whole(scores, values, fade, self._gates(x).unsqueeze(2))

    def _gates(self, x: Tensor) -> Tensor:
        """What the gate adds to the score of each position (column) in each output (row), (B, h, T, T)."""
        asked, described = self._asked(x), self._described(x)  # (B, h, T, r), (B, T, r)
        places = torch.arange(x.shape[1], dtype=asked.dtype, device=x.device)
        segments = torch.floor(places / self.segment)
        behind = segments[:, None] - segments  # (T, T), by how many segments
        within = (behind == 0).to(asked.dtype)
        so_far = within * (places <= places[:, None]).to(asked.dtype) / (places - self.segment * segments + 1)[:, None]
        running = (asked * (so_far @ described).unsqueeze(1)).sum(-1, keepdim=True)  # (B, h, T, 1)
        ended = asked @ (within @ described / self.segment).transpose(1, 2).unsqueeze(1)  # (B, h, T, T)
        cached = (behind <= self.slots).to(asked.dtype)
        return within * running + (1.0 - within) * cached * ended

    def by_segments(self, x: Tensor, scores: Tensor, values: Tensor, fade: Tensor | None) -> Tensor:
        """The same as `whole` segment by segment, in memory proportional to T: the form of training."""
        states = [value.expand(len(x), *value.shape[1:]) for _, value in self.initial_states(scores, values)]
        outputs = []
        for start in range(0, x.shape[1], self.segment):
            part = slice(start, start + self.segment)
            if start:
                states = self._moved_on(states)
            now = self._part(states, -1)
            after = prefix.trajectory(scores[..., part], values[..., part, :], now, fade)
            output, states = self._advance(x[:, part], after, states, fade)
            outputs.append(output)
        return torch.cat(outputs, -2)

    def step(
        self, x: Tensor, scores: Tensor, values: Tensor, states: Sequence[Tensor], fade: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The next positions, one after the other; arguments as in `whole`, and the states before them."""
        outputs, now = [], list(states)
        for place in range(x.shape[1]):
            ended = now[4] >= self.segment  # (B, 1)
            new = self._moved_on(now)
            now = [
                torch.where(ended.view(-1, *[1] * (old.dim() - 1)), *both)
                for old, both in zip(now, zip(new, now, strict=True), strict=True)
            ]
            value = values[..., place, :]
            a, c, m = prefix.next_state(scores[..., place], value, self._part(now, -1), fade)
            after = (a.unsqueeze(-2), c.unsqueeze(-1), m.unsqueeze(-1))
            output, now = self._advance(x[:, place : place + 1], after, now, fade)
            outputs.append(output)
        return torch.cat(outputs, -2), now

    def initial_states(self, scores: Tensor, values: Tensor) -> list[tuple[str, Tensor]]:
        """Name and value (1, ...) of each state before the first position; see `NAMES`."""
        shape = (1, *scores.shape[1:3], self.slots + 2)
        a, c, m = prefix.initial_state(shape, values.shape[-1], dtype=scores.dtype, device=scores.device)
        described, count = c.new_zeros(1, self.slots + 1, self.width), c.new_zeros(1, 1)
        return list(zip(NAMES, (a, c, m, described, count), strict=True))

    def _advance(
        self, x: Tensor, after: prefix.State, states: Sequence[Tensor], fade: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The outputs of n positions within a segment, and the states after them.

        Args:
            x: (B, n, I).
            after: (a, c, m) of the running segment after each position, (B, h, k, n, d) and (B, h, k, n).
            states: Before them.
            fade: As in `whole`.
        """
        a, c, m, described, count = states
        ages = torch.arange(x.shape[1], dtype=m.dtype, device=x.device) + 1.0  # (n,)
        asked = self._asked(x)  # (B, h, n, r)
        entering = self._described(x)  # (B, n, r)
        so_far = described[:, -1:] + (entering if len(ages) == 1 else torch.cumsum(entering, 1))
        means = so_far / (count.unsqueeze(-1) + ages[:, None])
        running = (asked * means.unsqueeze(1)).sum(-1).unsqueeze(2)  # (B, h, 1, n)
        slots = asked @ (described[:, :-1] / self.segment).transpose(1, 2).unsqueeze(1)  # (B, h, n, S)
        gates = (
            torch.cat([torch.zeros_like(slots[..., :1]), slots], -1).transpose(2, 3).unsqueeze(2)
        )  # (B, h, 1, S + 1, n)
        lost = m.new_zeros(()) if fade is None else fade[..., None, None] * ages
        earlier = (a[..., :-1, :], c[..., :-1], m[..., :-1].unsqueeze(-1) - lost + gates)
        output = _read(earlier, (after[0], after[1], after[2] + running))
        faded = m[..., :-1] if fade is None else m[..., :-1] - fade[..., None] * float(x.shape[1])
        new = [
            torch.cat([a[..., :-1, :], after[0][..., -1:, :]], -2),
            torch.cat([c[..., :-1], after[1][..., -1:]], -1),
            torch.cat([faded, after[2][..., -1:]], -1),
            torch.cat([described[:, :-1], so_far[:, -1:]], 1),
            count + float(x.shape[1]),
        ]
        return output, new

    def _moved_on(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The states when a segment has ended: it gets the newest slot, the oldest joins what came earlier."""
        a, c, m, described, count = states
        earlier = prefix.merged(self._part(states, 0), self._part(states, 1))
        empty = prefix.initial_state(tuple(c.shape[:-1]), a.shape[-1], dtype=a.dtype, device=a.device)
        return [
            torch.cat([earlier[0].unsqueeze(-2), a[..., 2:, :], empty[0].unsqueeze(-2)], -2),
            torch.cat([earlier[1].unsqueeze(-1), c[..., 2:], empty[1].unsqueeze(-1)], -1),
            torch.cat([earlier[2].unsqueeze(-1), m[..., 2:], empty[2].unsqueeze(-1)], -1),
            torch.cat([described[:, 1:], torch.zeros_like(described[:, :1])], 1),
            torch.zeros_like(count),
        ]

    @staticmethod
    def _part(states: Sequence[Tensor], place: int) -> prefix.State:
        """One of the averages."""
        a, c, m = states[:3]
        return a[..., place, :], c[..., place], m[..., place]

    def _asked(self, x: Tensor) -> Tensor:
        """(B, T, I) -> u (B, h, T, r)."""
        parts = self.ask(x).to(prefix.working_type(x)).unflatten(-1, (self.heads, self.width))
        asked: Tensor = parts.transpose(1, 2)
        return asked

    def _described(self, x: Tensor) -> Tensor:
        """(B, T, I) -> kappa (B, T, r)."""
        described: Tensor = self.describe(x).to(prefix.working_type(x))
        return described

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"slots={self.slots}, segment={self.segment}"


def _read(earlier: prefix.State, now: prefix.State) -> Tensor:
    """The outputs (..., n, d) of averages (..., S + 1, ...), m with n behind, and the running one at n positions."""
    (a, c, m), (a_now, c_now, m_now) = earlier, now
    largest = torch.maximum(m.amax(-2), m_now)  # (..., n)
    old, new = torch.exp(m - largest.unsqueeze(-2)), torch.exp(m_now - largest)  # (..., S + 1, n), (..., n)
    sums = old.transpose(-1, -2) @ a + new.unsqueeze(-1) * a_now
    totals = (old * c.unsqueeze(-1)).sum(-2) + new * c_now
    return sums / totals.unsqueeze(-1)

r"""A memory cache: what the segments of a sequence left in memory, apart, read by a gate that the input decides on.

A layer that sums up all positions so far keeps S + 2 sums instead: of the segment of C positions that it is in, of the
S segments before it (slots), and of whatever came earlier. How much of each goes into output t follows from

.. math::
    g_{ti} = u_t \cdot \bar\kappa_i, \quad g_{t,\mathrm{earlier}} = 0

where u and :math:`\kappa` are linear in the input and :math:`\bar\kappa_i` is the mean of :math:`\kappa` over segment
i, of the running one so far. A segment that ends moves into the newest slot, and the oldest slot is added to what came
earlier, exactly: so nothing is lost, the state does not grow, and with a gate of 0 the layer computes what it computes
without a cache. That is where training starts.

What is summed up, and what a gate does to it, is for the subclasses to say: running averages
(`compressor.nn.attention.cached_averages`) or the states of linear systems (`compressor.nn.converted.cached_system`).

Source: Memory Caching, arXiv 2602.24281 (gated residual memory). A fixed number of slots, and the sum of what came
earlier, are ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.nn.attention import prefix
from compressor.nn.record import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Advance = Callable[[int, list[Tensor]], tuple[Tensor, list[Tensor]]]
    """Number of a position and the states before it -> its output and the states after it."""

    from compressor.nn.factory import FactoryOptions

_WIDEST = 16


class CacheRecord(LayerRecord):
    """The fields of every record of a layer that can have a cache."""

    memory_cache: Annotated[int, Field(ge=0, le=256)] = 0
    """S; 0 for none."""
    cache_segment: Annotated[int, Field(ge=1, le=4096)] = 16
    """C."""


NO_CACHE: Mapping[str, int] = CacheRecord().model_dump()
"""These fields of a layer without one."""


def described(record: Mapping[str, Any]) -> str:
    """The cache of a record in a few words, to be put behind others."""
    return f", {record['memory_cache']} slots of {record['cache_segment']}" if record["memory_cache"] else ""


def fields(cache: MemoryCache | None) -> Mapping[str, int]:
    """What the record of a layer says of its cache; None: it has none."""
    return NO_CACHE if cache is None else {"memory_cache": cache.slots, "cache_segment": cache.segment}


class Gates(NamedTuple):
    """Of n positions within one segment."""

    slots: Tensor
    """(B, h, S + 1, n), 0 for what came earlier and then those of the slots, the oldest first."""
    running: Tensor
    """(B, h, n)."""
    described: Tensor
    """Sums of kappa over the running segment so far, (B, n, r)."""


class MemoryCache(nn.Module, ABC):
    """Gates of h heads over S slots of C positions: `ask` gives u, `describe` gives kappa.

    A stream carries the parts of the memory, each with S + 2 places on `axis`, and two states of the gates:
    `described` (B, S + 1, r), the sums of kappa over the slots and the running segment, and `count` (B, 1), its
    positions.
    """

    axis: ClassVar[int]
    """Of what came earlier, the slots and the running segment, in each part of the memory."""

    def __init__(self, inputs: int, heads: int, slots: int, segment: int, factory: FactoryOptions) -> None:
        """A gate of 0.

        Args:
            inputs: I.
            heads: h, each with a gate of its own.
            slots: S.
            segment: C.
            factory: See `FactoryOptions`.
        """
        super().__init__()
        self.heads, self.slots, self.segment = heads, slots, segment
        self.width = min(inputs, _WIDEST)
        self.ask = nn.Linear(inputs, heads * self.width, **factory)
        self.describe = nn.Linear(inputs, self.width, **factory)
        self._close()

    def reset(self) -> None:
        """The values of a new cache, in place."""
        self.describe.reset_parameters()
        self._close()

    def _close(self) -> None:
        for weight in self.ask.parameters():
            nn.init.zeros_(weight)

    @abstractmethod
    def _merged(self, first: list[Tensor], second: list[Tensor]) -> Sequence[Tensor]:
        """The memory of all positions that two memories sum up."""

    @abstractmethod
    def _empty(self, like: list[Tensor]) -> Sequence[Tensor]:
        """A memory of nothing."""

    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """A gate of 0, and kappa random mixtures of inputs x (N, I) of unit variance, in place."""
        x = x.cpu().double()
        rows = torch.randn(self.width, x.shape[1], generator=generator, dtype=torch.float64)
        rows = rows / rows.norm(dim=1, keepdim=True) / x.std(0, unbiased=False).clamp_min(1e-6)
        self._close()
        with torch.no_grad():
            self.describe.weight.copy_(rows)
            self.describe.bias.copy_(-rows @ x.mean(0))

    def all_gates(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The gate of the segment of each position (column) in each output (row) from there on, (B, h, T, T).

        Args:
            x: (B, T, I).
            valid: (B, T, 1), 0 where a position is passed over and 1 elsewhere; None if none is.
        """
        asked, entering = self._asked(x), self._entering(x, valid)  # (B, h, T, r), (B, T, r)
        places = torch.arange(x.shape[1], dtype=asked.dtype, device=x.device)
        segments = torch.floor(places / self.segment)
        behind = segments[:, None] - segments  # (T, T), by how many segments
        within = (behind == 0).to(asked.dtype)
        so_far = within * (places <= places[:, None]).to(asked.dtype) / (places - self.segment * segments + 1)[:, None]
        running = (asked * (so_far @ entering).unsqueeze(1)).sum(-1, keepdim=True)  # (B, h, T, 1)
        ended = asked @ (within @ entering / self.segment).transpose(1, 2).unsqueeze(1)  # (B, h, T, T)
        cached = (behind <= self.slots).to(asked.dtype)
        return within * running + (1.0 - within) * cached * ended

    def gates(self, x: Tensor, states: Sequence[Tensor], valid: Tensor | None = None) -> Gates:
        """Of the next positions x (B, n, I), all within the running segment, after those that the states sum up."""
        *_, described, count = states
        ages = torch.arange(x.shape[1], dtype=count.dtype, device=x.device) + 1.0  # (n,)
        asked = self._asked(x)  # (B, h, n, r)
        entering = self._entering(x, valid)  # (B, n, r)
        so_far = described[:, -1:] + (entering if len(ages) == 1 else torch.cumsum(entering, 1))
        means = so_far / (count.unsqueeze(-1) + ages[:, None])
        running = (asked * means.unsqueeze(1)).sum(-1)
        slots = asked @ (described[:, :-1] / self.segment).transpose(1, 2).unsqueeze(1)  # (B, h, n, S)
        return Gates(torch.cat([torch.zeros_like(slots[..., :1]), slots], -1).transpose(2, 3), running, so_far)

    def counted(self, states: Sequence[Tensor], gates: Gates, positions: int) -> list[Tensor]:
        """`described` and `count` after so many positions more."""
        *_, described, count = states
        return [torch.cat([described[:, :-1], gates.described[:, -1:]], 1), count + float(positions)]

    def moved_on(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The states when a segment has ended: it gets the newest slot, the oldest joins what came earlier."""
        *memory, described, count = states
        first, second = ([part.select(self.axis, place) for part in memory] for place in (0, 1))
        ends = zip(self._merged(first, second), memory, self._empty(first), strict=True)
        moved = [
            torch.cat([earlier.unsqueeze(self.axis), self._rest(part), empty.unsqueeze(self.axis)], self.axis)
            for earlier, part, empty in ends
        ]
        described = torch.cat([described[:, 1:], torch.zeros_like(described[:, :1])], 1)
        return [*moved, described, torch.zeros_like(count)]

    def one_by_one(
        self, positions: int, states: Sequence[Tensor], advance: Advance
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs of the next positions and the states after them; `advance` goes on within a segment."""
        outputs, now = [], list(states)
        for place in range(positions):
            ended = now[-1] >= self.segment  # (B, 1)
            now = [
                torch.where(ended.view(-1, *[1] * (old.dim() - 1)), moved, old)
                for old, moved in zip(now, self.moved_on(now), strict=True)
            ]
            output, now = advance(place, now)
            outputs.append(output)
        return outputs, now

    def _rest(self, part: Tensor) -> Tensor:
        """The places of a part of the memory behind the first two."""
        return part.narrow(self.axis, 2, self.slots)

    def _first_counts(self, like: Tensor) -> list[tuple[str, Tensor]]:
        """Name and value of the states of the gates before the first position."""
        kind = prefix.working_type(like)
        zeros = [like.new_zeros(1, self.slots + 1, self.width, dtype=kind), like.new_zeros(1, 1, dtype=kind)]
        return list(zip(("described", "count"), zeros, strict=True))

    def _asked(self, x: Tensor) -> Tensor:
        """(B, T, I) -> u (B, h, T, r)."""
        parts = self.ask(x).to(prefix.working_type(x)).unflatten(-1, (self.heads, self.width))
        asked: Tensor = parts.transpose(1, 2)
        return asked

    def _entering(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """(B, T, I) -> kappa (B, T, r), 0 where a position is passed over."""
        entering: Tensor = self.describe(x).to(prefix.working_type(x))
        return entering if valid is None else entering * valid.to(entering.dtype)

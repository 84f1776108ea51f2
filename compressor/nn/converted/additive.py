r"""Additive recurrence: each key channel holds a running softmax over time of the values, and the input mixes them.

With h heads of k key channels and d values, for each head and key channel c

.. math::
    z_{t,c} = \log(e^{z_{t-1,c} - \lambda_c} + e^{s_{t,c}}), \quad
    S_{t,c} = e^{z_{t-1,c} - \lambda_c - z_{t,c}} S_{t-1,c} + e^{s_{t,c} - z_{t,c}} v_t, \quad
    o_t = \sum_c \mathrm{SiLU}(q_{t,c}) S_{t,c}

where s, q and v are linear in the input. Units (a Linear and relu) behind the heads mix them. Without :math:`\lambda`
(`forget`) z only grows: the weight of a new position falls like 1 / t, and an endless stream goes deaf. With one key
channel and a query of 1 it is an Aaren, whose sums it shares (`compressor.nn.attention.prefix`).

Source: LightNet, arXiv 2405.21022, section 3 (the additive recurrence); the fading is ours. Its norm of the outputs and
its low-rank gate are left out: the units do what they would.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.attention import prefix
from compressor.nn.attention.cached_averages import CachedAverages
from compressor.nn.converted.heads import HeadedLayer, HeadedRecord
from compressor.nn.converted.layer import is_traced
from compressor.nn.converted.starts import start_channels, start_units
from compressor.nn.factory import factory_options
from compressor.nn.memory_cache import NO_CACHE, CacheRecord
from compressor.nn.memory_cache import described as described_cache
from compressor.nn.memory_cache import fields as cache_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.converted.heads import HeadSizes

CHUNK = 64
"""Positions at once in training: what lies before a chunk is summed up in its state."""
_FASTEST, _SLOWEST = 0.3, 300.0
"""Positions after which a weight has faded to 1/e at the start."""
_MIXING = 0.5


class AdditiveRecord(HeadedRecord, CacheRecord):
    """What an `AdditiveLayer` is built from."""

    forget: bool


class AdditiveLayer(HeadedLayer):
    """`project` to scores, queries and values, the sums, `expand` to relu units, `readout`."""

    label = "additive recurrence"
    record_type = AdditiveRecord

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        forget: bool = True,
        memory_cache: int = 0,
        cache_segment: int = 16,
        **sizes: Unpack[HeadSizes],
    ) -> None:
        """With fading spread over the key channels, evenly in its logarithm.

        Args:
            input_size: I.
            output_size: O.
            forget: Weights fade with time.
            memory_cache: Slots of a `CachedAverages`; 0 for none.
            cache_segment: Positions of each of them.
            **sizes: See `HeadSizes`.
        """
        super().__init__(**sizes)
        factory = factory_options(sizes)
        self.project = nn.Linear(input_size, self.heads * (2 * self.keys + self.values), **factory)
        self.log_fade = nn.Parameter(_fades(self.heads, self.keys).to(**factory)) if forget else None
        self.cache: CachedAverages | None = None
        if memory_cache:
            self.cache = CachedAverages(input_size, self.heads, memory_cache, cache_segment, factory)
        self._add_units(output_size, sizes["hidden"], factory)

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {**super().own_fields(), "forget": self.log_fade is not None, **cache_fields(self.cache)}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {**super().own_usual(width), "forget": True, **NO_CACHE}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        forgetting = "" if record["forget"] else ", nothing forgotten"
        return f"{record['heads']} heads of {record['keys']} key channels{forgetting}{described_cache(record)}"

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`: chunk by chunk, or at once while a model is traced or exported."""
        scores, queries, values = self._split(x)
        if self.cache is not None:
            sums = self.cache(x, scores, values, self._fade(scores))
            return self._units(self._mixed(sums, queries), x)
        if is_traced() or x.shape[1] <= CHUNK:
            return self._units(self._mixed(prefix.whole(scores, values, self._fade(scores)), queries), x)
        return self._units(self._mixed(self.by_chunks(scores, values), queries), x)

    def by_chunks(self, scores: Tensor, values: Tensor) -> Tensor:
        """The sums (B, h, k, T, d) of scores (B, h, k, T) and values (B, h, 1, T, d), in memory proportional to T."""
        state, parts, fade = self._start_of(scores, len(scores)), [], self._fade(scores)
        for start in range(0, scores.shape[-1], CHUNK):
            part = slice(start, start + CHUNK)
            sums, state = prefix.advance(scores[..., part], values[..., part, :], state, fade)
            parts.append(sums)
        return torch.cat(parts, -2)

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Weighted values (1, h, k, d), sums of weights (1, h, k), largest score (1, h, k); or those of the cache."""
        a, c, m = self._start_of(self.readout.weight.detach(), 1)
        if self.cache is not None:
            return self.cache.initial_states(c.unsqueeze(-1), a)
        return [("sums", a), ("weights", c), ("largest", m)]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`."""
        scores, queries, values = self._split(x)
        if self.cache is not None:
            sums, new = self.cache.step(x, scores, values, states, self._fade(scores))
            return self._units(self._mixed(sums, queries), x), new
        a, c, m = states
        if x.shape[1] == 1:
            sums, state = prefix.advance_one(scores[..., 0], values[..., 0, :], (a, c, m), self._fade(scores))
            sums = sums.unsqueeze(-2)
        else:
            sums, state = prefix.advance(scores, values, (a, c, m), self._fade(scores))
        return self._units(self._mixed(sums, queries), x), list(state)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, T, I) to scores and queries (B, h, k, T) and values (B, h, 1, T, d), in float32 or wider."""
        projected = self.project(x).to(prefix.working_type(x)).unflatten(-1, (self.heads, -1))  # (B, T, h, 2 k + d)
        scores, queries, values = projected.split([self.keys, self.keys, self.values], -1)
        return scores.permute(0, 2, 3, 1), queries.permute(0, 2, 3, 1), values.transpose(1, 2).unsqueeze(2)

    def _mixed(self, sums: Tensor, queries: Tensor) -> Tensor:
        """Sums (B, h, k, T, d) and queries (B, h, k, T) to heads side by side (B, T, h d)."""
        weights = nn.functional.silu(queries).unsqueeze(-1)  # (B, h, k, T, 1)
        return (weights * sums).sum(2).transpose(1, 2).flatten(2)

    def _units(self, mixed: Tensor, x: Tensor) -> Tensor:
        return torch.relu(self.expand(mixed.to(x.dtype)))

    def _fade(self, like: Tensor) -> Tensor | None:
        """What a score loses with each position, (h, k)."""
        return None if self.log_fade is None else torch.exp(self.log_fade.to(like.dtype))

    def _start_of(self, like: Tensor, batch: int) -> prefix.State:
        shape = (batch, self.heads, self.keys)
        return prefix.initial_state(shape, self.values, dtype=prefix.working_type(like), device=like.device)

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Values along the directions that drive the old layer; scores and queries read random mixtures of them."""
        width = self.heads * self.values
        channels = nn.Linear(x.shape[1], width, dtype=torch.float64)
        start_channels(channels, x, drive)
        rows, offsets = channels.weight.detach(), channels.bias.detach()  # (h d, I), of unit variance
        mixing = torch.randn(2, self.heads * self.keys, width, generator=generator, dtype=torch.float64)
        mixing = mixing / mixing.norm(dim=-1, keepdim=True)
        parts = [rows.unflatten(0, (self.heads, -1))]  # (h, d, I)
        biases = [offsets.unflatten(0, (self.heads, -1))]
        for part in mixing.flip(0):
            chosen = torch.randn(len(part), generator=generator, dtype=torch.float64)
            parts.insert(0, (_MIXING * part @ rows).unflatten(0, (self.heads, -1)))
            biases.insert(0, (_MIXING * part @ offsets + chosen).unflatten(0, (self.heads, -1)))
        start_units(self.expand, generator)
        with torch.no_grad():
            self.project.weight.copy_(torch.cat(parts, 1).flatten(0, 1))
            self.project.bias.copy_(torch.cat(biases, 1).flatten())
            if self.log_fade is not None:
                self.log_fade.copy_(_fades(self.heads, self.keys))
        if self.cache is not None:
            self.cache.start(x, generator)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"heads={self.heads}, keys={self.keys}, values={self.values}, forget={self.log_fade is not None}"


def _fades(heads: int, keys: int) -> Tensor:
    """Logarithms (h, k) of what is lost with each position: every head has fast and slow key channels."""
    spans = torch.linspace(math.log(_FASTEST), math.log(_SLOWEST), heads * keys)
    return -spans.view(keys, heads).T

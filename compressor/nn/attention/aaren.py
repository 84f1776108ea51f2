"""Aaren: attention whose query is learned once for the layer, so that it runs as a recurrence with a fixed state.

Source: Feng et al., "Attention as an RNN", arXiv 2405.13956, section 3.3. It is not the attention that it replaces with
another order of sums: that one's queries come from the tokens, so an Aaren has to be trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.attention import prefix
from compressor.nn.attention.cached_averages import STATES, CachedAverages
from compressor.nn.attention.causal_masks import is_causal_mask
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.folded_scores import projected_query, score_weights
from compressor.nn.attention.multihead import MultiheadLayer, MultiheadOptions, MultiheadRecord, refuse_nested
from compressor.nn.attention.prefix_scan import parallel
from compressor.nn.factory import factory_options
from compressor.nn.memory_cache import CacheRecord
from compressor.nn.memory_cache import described as described_cache
from compressor.nn.memory_cache import fields as cache_fields
from compressor.nn.record import LayerRecord, Size, allocate, copy_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence


class AarenRecord(MultiheadRecord, CacheRecord):
    """What an `AarenAttention` is built from."""

    input_width: Size


class AarenAttention(MultiheadLayer):
    r"""Causal self-attention with one learned query, called as `nn.MultiheadAttention` is.

    With E_q numbers in `query`, E input features, h heads of d features for the query and the keys and d_v for values,
    and E_o outputs: `query` (E_q,), `q_proj` (h * d, E_q), `k_proj` (h * d, E), `v_proj` (h * d_v, E), `out_proj`
    (E_o, h * d_v). Output k is `out_proj` of :math:`\sum_{i \le k} p_{ki} v_i` of all heads, where p is the softmax of
    the scores :math:`s_i = s\, q \cdot k_i` of the positions up to k: it depends on the inputs 1..k only. Beside the
    attention that it replaces it has the E_q numbers of `query` more.

    Since the query is the same everywhere, `k_proj` is never applied to a sequence: a score is one inner product of
    the input with :math:`s\, W_k^T q`, E features for each head, which an exporter computes once and for all.

    The state after any number of positions is (a, c, m): (B, h, d_v), (B, h) and (B, h). With a memory cache there are
    as many of them as places, (B, h, 1, S + 2, ...), and the two states of its gates; see `CachedAverages`.
    """

    record_type: ClassVar[type[LayerRecord]] = AarenRecord

    def __init__(
        self,
        num_heads: int,
        *,
        input_width: int,
        memory_cache: int = 0,
        cache_segment: int = 16,
        **options: Unpack[MultiheadOptions],
    ) -> None:
        """Build the query, from a normal distribution, and the four layers, with the initial weights of `nn.Linear`.

        Args:
            num_heads: h.
            input_width: E.
            memory_cache: Slots of a `CachedAverages`; 0 for none.
            cache_segment: Positions of each of them.
            **options: See `MultiheadOptions`.
        """
        super().__init__()
        factory = factory_options(options)
        self.cache: CachedAverages | None = None
        if memory_cache:
            self.cache = CachedAverages(input_width, num_heads, memory_cache, cache_segment, factory)
        self.query = nn.Parameter(torch.randn(options["query_width"], **factory))
        self._add_projections(num_heads, input_width, input_width, **options)

    @classmethod
    def from_attention(
        cls,
        attention: nn.MultiheadAttention | CompactMultiheadAttention,
        *,
        memory_cache: int = 0,
        cache_segment: int = 16,
    ) -> AarenAttention:
        """An Aaren with copies of an attention's four layers, and a query of zeros; the attention is left as it is.

        The weights of a cache are undefined: `cache.start` gives them values.

        Raises:
            SurgeryError: The attention has `add_bias_kv` or `add_zero_attn`.
            MethodError: Its keys and values are not of the same width.
        """
        if isinstance(attention, nn.MultiheadAttention):
            attention = CompactMultiheadAttention.from_module(attention)
        if attention.kdim != attention.vdim:
            raise MethodError(
                f"keys of {attention.kdim} features and values of {attention.vdim} are not self-attention",
                hint="name it under `ignore`",
            )
        weight = attention.q_proj.weight
        cache = {"memory_cache": memory_cache, "cache_segment": cache_segment}
        sizes = {**attention.heads_record(), "input_width": attention.kdim, **cache}
        aaren = cls(**sizes, device="meta", dtype=weight.dtype)
        allocate(aaren, weight.device)
        nn.init.zeros_(aaren.query)
        for name, old in attention.named_parameters():
            copy_parameter(aaren.get_parameter(name), old)
        return aaren.train(attention.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        sizes: dict[str, Any] = {**self.heads_record(), **cache_fields(self.cache)}
        return AarenRecord(**sizes, input_width=self.embed_dim).model_dump()

    @property
    def embed_dim(self) -> int:
        """E, the width of the input."""
        return self.k_proj.in_features

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend, each position to those up to its own.

        Args:
            query: (N, B, E), (B, N, E) with `batch_first`, or unbatched (N, E); only its length counts.
            key: The sequence itself, of the same shape.
            value: The same.
            key_padding_mask: (B, N) or unbatched (N,); True or -inf: this position is passed over. Floats are added. An
                output before which every position is passed over is that of a context of zeros. Segments of a memory
                cache count all positions.
            need_weights: Has no effect; no weights are given.
            attn_mask: None or a causal mask, which changes nothing: (N, N) or (B * h, N, N).
            average_attn_weights: Has no effect.
            is_causal: Says that `attn_mask` is causal, which is then not checked.

        Returns:
            The output, in the form of `query` with E_o features; and None.

        Raises:
            MethodError: `attn_mask` is not causal, or the sequences are not of one length.
        """
        refuse_nested(key, value)
        if query.shape[:-1] != key.shape[:-1] or key.shape[:-1] != value.shape[:-1]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (query, key, value))
            raise MethodError(
                f"an Aaren attends to its own sequence, not from one to another: query, key and value are {shapes}",
                hint="cross-attention stays as it is; name it under `ignore`",
            )
        plain = torch.compiler.is_exporting()
        if attn_mask is not None and not is_causal and not plain:  # what is exported has been run before
            _refuse_other_masks(attn_mask)
        batched = value.dim() == 3
        key, value = self._batch_first(key, value)
        scores = self._scores(key)  # (B, h, N)
        if key_padding_mask is not None:
            scores = _passed_over(scores, key_padding_mask if batched else key_padding_mask.unsqueeze(0))
        values = self._split_heads(self.v_proj(value))  # (B, h, N, d_v)
        if self.cache is not None:
            context = self._cached(self.cache, key, scores, values, is_padded=key_padding_mask is not None)
        elif plain:
            context = prefix.whole(scores, values.to(scores.dtype)).to(values.dtype)
        else:
            context = parallel(scores, values)
        return self._as_called(self._output(context), batched=batched), None

    def _cached(self, cache: CachedAverages, x: Tensor, scores: Tensor, values: Tensor, *, is_padded: bool) -> Tensor:
        """The context (B, h, N, d_v): each head has one average a segment."""
        valid = (scores[:, :1] > prefix.start(scores.dtype)).transpose(1, 2) if is_padded else None  # (B, N, 1)
        context: Tensor = cache(x, scores.unsqueeze(2), values.unsqueeze(2).to(scores.dtype), None, valid)
        return context.squeeze(2).to(values.dtype)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Of the parts of the state."""
        return ("a", "c", "m") if self.cache is None else STATES

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state (a, c, m) before the first position: (B, h, d_v) and (B, h) of zeros, (B, h) of a large negative.

        Half precision has its state in float32: c counts positions. With a memory cache, its states.
        """
        weight = self.v_proj.weight
        dtype = prefix.working_type(weight)
        shape = (batch, self.num_heads)
        a, c, m = prefix.initial_state(shape, self.value_head_dim, dtype=dtype, device=weight.device)
        if self.cache is None:
            return a, c, m
        named = self.cache.initial_states(c[..., None, None], a[..., None, None, :])
        return tuple(value.repeat(batch, *[1] * (value.dim() - 1)) for _, value in named)

    def step(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next T positions of a sequence, T >= 1; each of them takes part.

        Args:
            x: (B, T, E), whatever `batch_first`.
            state: What `initial_state` or the last step gave.

        Returns:
            The output (B, T, E_o) and the state after these positions.
        """
        if x.shape[1] == 1 and self.cache is None:
            return self._single_step(x.squeeze(1), state)
        scores, values = self._scores(x), self._split_heads(self.v_proj(x))
        wide = values.to(scores.dtype)
        if self.cache is not None:
            cached, new = self.cache.step(x, scores.unsqueeze(2), wide.unsqueeze(2), state, None)
            return self._output(cached.squeeze(2).to(values.dtype)), tuple(new)
        a, c, m = state
        context, after = prefix.advance(scores, wide, (a, c, m))
        return self._output(context.to(values.dtype)), after

    def _single_step(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The step for one position, (B, E), with no axis of time to move about."""
        score = self._scores_behind(x)  # (B, h)
        value = self.v_proj(x).unflatten(-1, (self.num_heads, -1))  # (B, h, d_v)
        a, c, m = state
        context, after = prefix.advance_one(score, value.to(score.dtype), (a, c, m))
        return self.out_proj(context.to(value.dtype).flatten(1)).unsqueeze(1), after

    def _scores(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, h, N), in float32 or wider."""
        return self._scores_behind(x).transpose(1, 2)

    def _scores_behind(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., h), in float32 or wider."""
        dtype = prefix.working_type(x)
        with torch.autocast(x.device.type, enabled=False):
            rows, offsets = self._score_weights(dtype)
            return nn.functional.linear(x.to(dtype), rows, offsets)

    def _score_weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Rows (h, E) and offsets (h,) or None: the scores of an input x are rows @ x + offsets."""
        query = projected_query(self.query, self.q_proj.weight, self.q_proj.bias, dtype)
        return score_weights(query, self.k_proj.weight, self.k_proj.bias, self.num_heads, self.scale)

    def extra_repr(self) -> str:
        """The structure in one line."""
        cache = described_cache(cache_fields(self.cache))
        return self._structure(f"scale={self.scale:.6g}, batch_first={self.batch_first}{cache}")


def _refuse_other_masks(mask: Tensor) -> None:
    if not is_causal_mask(mask):
        raise MethodError(
            f"an Aaren is causal as it stands and takes no other attn_mask; one of shape {tuple(mask.shape)} is not "
            "causal",
            hint="pass positions to be left out as key_padding_mask; a layer with another mask cannot become an Aaren",
        )


def _passed_over(scores: Tensor, padding: Tensor) -> Tensor:
    """Scores (B, h, N) with those of padding (B, N) so low that they weigh nothing; numbers are added."""
    expected = (scores.shape[0], scores.shape[-1])
    if tuple(padding.shape) != expected:
        raise RuntimeError(f"key_padding_mask has shape {tuple(padding.shape)}, not {expected}")
    nothing = prefix.nothing(scores.dtype)
    if padding.dtype == torch.bool:
        return torch.where(padding[:, None], nothing, scores)
    return (scores + padding[:, None].to(scores.dtype)).clamp(min=nothing)

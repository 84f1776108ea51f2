"""Multi-head attention whose inputs, heads and output have widths of their own."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.attention.multihead import MultiheadLayer, MultiheadOptions, MultiheadRecord, refuse_nested
from compressor.nn.record import LayerRecord, Probability, Size, allocate, copy_parameter


class CompactAttentionRecord(MultiheadRecord):
    """What a `CompactMultiheadAttention` is built from."""

    key_width: Size
    value_width: Size
    dropout: Probability


class CompactMultiheadAttention(MultiheadLayer):
    r"""`nn.MultiheadAttention`, called in the same way, which may have lost heads, features of heads, or inputs.

    With E_q, E_k, E_v input features, h heads of d features for queries and keys and d_v for values, and E_o outputs:
    `q_proj` (h * d, E_q), `k_proj` (h * d, E_k), `v_proj` (h * d_v, E_v), `out_proj` (E_o, h * d_v), and for each head
    :math:`\mathrm{softmax}(s\, q k^T + \mathrm{mask})\, v`. The scale s stays what it was when features of heads go.
    """

    record_type: ClassVar[type[LayerRecord]] = CompactAttentionRecord
    bias_k = None
    bias_v = None
    add_zero_attn = False

    def __init__(
        self,
        num_heads: int,
        *,
        key_width: int,
        value_width: int,
        dropout: float = 0.0,
        **options: Unpack[MultiheadOptions],
    ) -> None:
        """Build the four layers, with the initial weights of `nn.Linear`.

        Args:
            num_heads: h.
            key_width: E_k.
            value_width: E_v.
            dropout: Probability of dropping an attention weight in training.
            **options: See `MultiheadOptions`.
        """
        super().__init__()
        self.dropout = dropout
        self._add_projections(num_heads, key_width, value_width, **options)

    @classmethod
    def from_module(cls, module: nn.MultiheadAttention) -> CompactMultiheadAttention:
        """The same attention in this form, with copies of the weights; the module is left as it is.

        Raises:
            SurgeryError: The module has `add_bias_kv` or `add_zero_attn`.
        """
        for option, present in (("add_bias_kv", module.bias_k is not None), ("add_zero_attn", module.add_zero_attn)):
            if present:
                raise SurgeryError(
                    f"an nn.MultiheadAttention with {option}=True cannot be compressed",
                    hint="name it under `ignore`",
                )
        weights = _input_weights(module)
        compact = cls(
            module.num_heads,
            query_width=module.embed_dim,
            key_width=module.kdim,
            value_width=module.vdim,
            head_width=module.head_dim,
            value_head_width=module.head_dim,
            output_width=module.embed_dim,
            dropout=module.dropout,
            bias=module.in_proj_bias is not None,
            batch_first=module.batch_first,
            device="meta",
            dtype=weights[0].dtype,
        )
        allocate(compact, weights[0].device)
        compact._copy_weights(module, weights)
        return compact.train(module.training)

    def _copy_weights(self, module: nn.MultiheadAttention, weights: list[Tensor]) -> None:
        targets = (self.q_proj, self.k_proj, self.v_proj)
        sources = [(target.weight, weight) for target, weight in zip(targets, weights, strict=True)]
        sources.append((self.out_proj.weight, module.out_proj.weight))
        if module.in_proj_bias is not None:
            parts = module.in_proj_bias.chunk(3)
            sources += [(target.bias, part) for target, part in zip(targets, parts, strict=True)]
            sources.append((self.out_proj.bias, module.out_proj.bias))
        for new, old in sources:
            copy_parameter(new, old)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds an attention of this structure."""
        return CompactAttentionRecord(
            **self.heads_record(), key_width=self.kdim, value_width=self.vdim, dropout=self.dropout
        ).model_dump()

    @property
    def embed_dim(self) -> int:
        """E_q, the width of the queries that come in."""
        return self.q_proj.in_features

    @property
    def kdim(self) -> int:
        """E_k, the width of the keys that come in."""
        return self.k_proj.in_features

    @property
    def vdim(self) -> int:
        """E_v, the width of the values that come in."""
        return self.v_proj.in_features

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
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (L, B, E_q), (B, L, E_q) with `batch_first`, or unbatched (L, E_q).
            key: The same with S and E_k.
            value: The same with S and E_v.
            key_padding_mask: (B, S) or unbatched (S,); True or -inf: this key is passed over. Floats are added.
            need_weights: Give the attention weights as well.
            attn_mask: (L, S) or (B * h, L, S); True or -inf: this query does not see this key. Floats are added.
            average_attn_weights: Give the mean of the weights over the heads.
            is_causal: Says that `attn_mask`, which has to be given, is causal; it is applied as it is.

        Returns:
            The output, in the form of `query` with E_o features; and the weights (B, L, S), or (B, h, L, S) if they
            are not averaged, without B if unbatched, or None if they are not needed.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal says something about attn_mask, which is not given")
        refuse_nested(query, key, value)
        batched = query.dim() == 3
        query, key, value = self._batch_first(query, key, value)
        queries, keys, values = (
            self._split_heads(layer(part))
            for layer, part in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = self._mask(queries, keys, key_padding_mask, attn_mask)
        context, weights = self._attend(queries, keys, values, mask, need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if weights is not None and not batched:
            weights = weights.squeeze(0)
        return self._as_called(self._output(context), batched=batched), weights

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, h, L, d_v), and the weights (B, h, L, S) if they are needed."""
        dropped = self.dropout if self.training else 0.0
        if not need_weights:
            context = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropped, scale=self.scale
            )
            return context, None
        scores = (query * self.scale) @ key.transpose(-2, -1)  # (B, h, L, S)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = nn.functional.dropout(weights, dropped, training=self.training)
        return weights @ value, weights

    def _mask(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores (B, h, L, S): both masks together, or None."""
        batch, length, source = query.size(0), query.size(2), key.size(2)
        total = None
        if attn_mask is not None:
            total = _additive(attn_mask, query.dtype)
            shapes = [(length, source), (batch * self.num_heads, length, source)]
            if tuple(attn_mask.shape) not in shapes:
                raise RuntimeError(f"attn_mask has shape {tuple(attn_mask.shape)}, not {shapes[0]} or {shapes[1]}")
            total = total.unflatten(0, (batch, self.num_heads)) if total.dim() == 3 else total[None, None]
        if key_padding_mask is not None:
            padding = key_padding_mask if key_padding_mask.dim() == 2 else key_padding_mask.unsqueeze(0)
            if tuple(padding.shape) != (batch, source):
                raise RuntimeError(f"key_padding_mask has shape {tuple(padding.shape)}, not {(batch, source)}")
            padding = _additive(padding, query.dtype)[:, None, None]  # (B, 1, 1, S)
            total = padding if total is None else total + padding
        return total

    def extra_repr(self) -> str:
        """The structure in one line."""
        return self._structure(f"scale={self.scale:.6g}, dropout={self.dropout}, batch_first={self.batch_first}")


def _input_weights(module: nn.MultiheadAttention) -> list[Tensor]:
    """The weights of queries, keys and values, each (E, its input width)."""
    if module._qkv_same_embed_dim:
        return list(module.in_proj_weight.chunk(3))
    return [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers that are added to scores: True becomes -inf, False 0."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)

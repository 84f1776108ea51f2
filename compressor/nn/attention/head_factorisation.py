r"""Attention whose heads meet in fewer features: queries with keys, and values with the output, cut together.

Per head of d features, the score is :math:`s\,(W_q x + b_q)^T (W_k y + b_k)`. What does not depend on the key y drops
out of the softmax, so :math:`b_k` goes and :math:`s\,[W_q\,b_q]^T W_k` decides; the constant stays with the queries.
The output is :math:`\sum_h W_{o,h} \sum_t a_t (W_{v,h} y_t + b_{v,h}) + b_o`, and as the weights :math:`a_t` add up to
1, :math:`\sum_h W_{o,h} b_{v,h}` goes into :math:`b_o`. So both products can be cut to r features without an error
from the biases, and the scale s stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.factorisation import HeadPairs, root
from compressor.nn.record import allocate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.least_squares import Moments

Maps = tuple[Tensor, Tensor]
"""G and F (h, d, r), see `HeadPairs`."""


@dataclass(frozen=True)
class HeadWeights:
    """The four layers of an attention: weights (rows, columns) and biases, float64, head behind head."""

    heads: int
    query: Tensor
    """(h * d, E_q)"""
    key: Tensor
    """(h * d, E_k)"""
    value: Tensor
    """(h * d_v, E_v)"""
    output: Tensor
    """(E_o, h * d_v)"""
    query_bias: Tensor | None
    key_bias: Tensor | None
    value_bias: Tensor | None
    output_bias: Tensor | None

    @classmethod
    def of(cls, heads: int, layers: Sequence[nn.Linear]) -> HeadWeights:
        """Of the layers for queries, keys, values and the output."""
        biases = [None if layer.bias is None else layer.bias.detach().double() for layer in layers]
        return cls(heads, *(layer.weight.detach().double() for layer in layers), *biases)

    @property
    def tensors(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each layer."""
        return [
            (self.query, self.query_bias),
            (self.key, self.key_bias),
            (self.value, self.value_bias),
            (self.output, self.output_bias),
        ]


def query_key_pairs(weights: HeadWeights, moments: tuple[Moments, Moments] | None, *, joint: bool) -> HeadPairs:
    """Queries and keys.

    Args:
        weights: Of the attention.
        moments: Of all queries and of all keys (h * d,) on data; without, the weights alone count.
        joint: See `HeadPairs`.
    """
    heads = weights.heads
    if moments is not None:
        # A constant in all keys drops out of the softmax, so what varies among them counts.
        queries, keys = moments[0].second_moment(centred=False), moments[1].second_moment(centred=True)
        return HeadPairs(_roots(queries, heads), _roots(keys, heads), joint=joint)
    queries = _with_bias(weights.query, weights.query_bias, heads)  # (h, d, E_q + 1)
    return HeadPairs(queries, _rows(weights.key, heads), joint=joint)


def value_output_pairs(weights: HeadWeights, moments: Moments | None, *, joint: bool) -> HeadPairs:
    """Outputs and values; `moments` of what all heads give (h * d_v,), the input of the output layer."""
    outputs = _rows(weights.output.T, weights.heads)  # (h, d_v, E_o)
    if moments is None:
        folded = weights.output_bias is not None
        values = _with_bias(weights.value, None if folded else weights.value_bias, weights.heads)
        return HeadPairs(outputs, values, joint=joint)
    moment = moments.second_moment(centred=weights.output_bias is not None)
    return HeadPairs(outputs, _roots(moment, weights.heads), joint=joint)


def cut_query_key(weights: HeadWeights, maps: Maps) -> HeadWeights:
    """Queries and keys of r features; the bias of the keys becomes 0."""
    first, second = maps
    key = _mapped(second, weights.key, weights.heads)
    return replace(
        weights,
        query=_mapped(first, weights.query, weights.heads),
        query_bias=None if weights.query_bias is None else _mapped(first, weights.query_bias, weights.heads),
        key=key,
        key_bias=None if weights.key_bias is None else key.new_zeros(len(key)),
    )


def cut_value_output(weights: HeadWeights, maps: Maps, moments: Moments | None) -> HeadWeights:
    """Values of r features, and an output layer that takes them in.

    The output's bias takes up the values' and, if the mean of what the heads give is known, that of what is lost.
    """
    heads, bias, output_bias = weights.heads, weights.value_bias, weights.output_bias
    first, second = maps
    if output_bias is not None:
        constant = torch.zeros_like(weights.value[:, 0]) if bias is None else bias  # (h * d_v,)
        if moments is not None:
            lost = _rows(moments.mean - constant, heads)[..., None]  # (h, d_v, 1)
            constant = constant + (lost - first @ (second.mT @ lost)).flatten()
        output_bias = output_bias + weights.output @ constant
    value = _mapped(second, weights.value, heads)
    if bias is not None:
        bias = _mapped(second, bias, heads) if output_bias is None else value.new_zeros(len(value))
    return replace(
        weights,
        value=value,
        value_bias=bias,
        output=_mapped(first, weights.output.T, heads).T,
        output_bias=output_bias,
    )


def narrowed(attention: CompactMultiheadAttention, weights: HeadWeights) -> CompactMultiheadAttention:
    """An attention like the one that is given, of these weights."""
    record = attention.record() | {
        "head_width": len(weights.query) // weights.heads,
        "value_head_width": len(weights.value) // weights.heads,
    }
    like = attention.q_proj.weight
    narrow = allocate(CompactMultiheadAttention(**record, device="meta", dtype=like.dtype), like.device)
    for name, pair in zip(("q_proj", "k_proj", "v_proj", "out_proj"), weights.tensors, strict=True):
        old, new = getattr(attention, name), getattr(narrow, name)
        for kind, tensor in zip(("weight", "bias"), pair, strict=True):
            if tensor is not None:
                parameter = getattr(new, kind)
                with torch.no_grad():
                    parameter.copy_(tensor)
                parameter.requires_grad_(getattr(old, kind).requires_grad)
    return narrow.train(attention.training)


def _rows(tensor: Tensor, heads: int) -> Tensor:
    """(h * d, ...) -> (h, d, ...)."""
    rows: Tensor = tensor.unflatten(0, (heads, -1))
    return rows


def _with_bias(weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """(h, d, E), or (h, d, E + 1) with the bias as what a further input of 1 is multiplied with."""
    return _rows(weight if bias is None else torch.cat([weight, bias[:, None]], 1), heads)


def _mapped(maps: Tensor, tensor: Tensor, heads: int) -> Tensor:
    """(h * d, ...) -> (h * r, ...): each head's features through the transposed of its map (d, r)."""
    rows = _rows(tensor, heads)
    if rows.dim() == 2:
        return (maps.mT @ rows[..., None]).flatten()
    return (maps.mT @ rows).flatten(0, 1)


def _roots(moment: Tensor, heads: int) -> Tensor:
    """Square roots (h, d, d) of the blocks of each head on the diagonal of a moment (h * d, h * d)."""
    width = len(moment) // heads
    blocks = moment.unflatten(0, (heads, width)).unflatten(2, (heads, width))
    return torch.stack([root(blocks[head, :, head]) for head in range(heads)])

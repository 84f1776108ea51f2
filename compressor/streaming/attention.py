"""Attention over the next few positions and all before them, whose keys and values are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.causal_masks import is_causal_mask
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.recurrent.cells import plain_linear
from compressor.streaming.layers import LEAVE_OUT, Arguments


def batch_first(module: nn.Module, tensor: Tensor) -> Tensor:
    """(B, T, E), whatever the layer's layout."""
    return tensor if module.batch_first else tensor.transpose(0, 1)


def is_fixed_cross(module: nn.Module, call: Arguments) -> bool:
    """Whether the keys are those of something else than the sequence: of another length than the queries."""
    query, key = (batch_first(module, call.get(place, word)) for place, word in enumerate(("query", "key")))
    return query.shape[1] != key.shape[1]


def cache_widths(module: nn.Module) -> tuple[int, int]:
    """Features of a key and of a value in one head."""
    if isinstance(module, CompactMultiheadAttention):
        return module.head_dim, module.value_head_dim
    assert isinstance(module, nn.MultiheadAttention)
    return module.head_dim, module.head_dim


def refuse_looking_ahead(name: str, module: nn.Module, call: Arguments) -> None:
    """Raise an `ExportError` if a position sees later ones, or padding is hidden by a mask."""
    padding = call.get(3, "key_padding_mask")
    if padding is not None and bool((padding if padding.dtype == torch.bool else padding != 0).any()):
        raise ExportError(
            f"`{name}` is given a key_padding_mask that hides positions of a full sequence",
            hint=f"a stream has no padding: derive the mask from an input of lengths (`len` in its name), {LEAVE_OUT}",
        )
    if isinstance(module, AarenAttention):
        return
    if module.bias_k is not None or module.add_zero_attn:
        raise ExportError(
            f"`{name}` has add_bias_kv or add_zero_attn, for which there is no step",
            hint=f"train without, {LEAVE_OUT}",
        )
    mask = call.get(5, "attn_mask")
    fault = "it has no mask, so a position sees later ones" if mask is None else ""
    if mask is not None and not is_causal_mask(mask):
        fault = "its mask is not just causal: it shows later positions, hides earlier ones or adds numbers"
    if fault:
        raise ExportError(
            f"`{name}` has no step for one position: {fault}",
            hint=f"train it with a causal mask (True or -inf above the diagonal), {LEAVE_OUT}",
        )


def _project(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, h, T, d) of (B, T, E)."""
    if isinstance(module, CompactMultiheadAttention):
        parts = [module.q_proj(query), module.k_proj(key), module.v_proj(value)]
    else:
        assert isinstance(module, nn.MultiheadAttention)
        bias = module.in_proj_bias
        if module._qkv_same_embed_dim and query is key and key is value:
            parts = list(plain_linear(query, module.in_proj_weight, bias).chunk(3, -1))
        else:
            separate = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
            weights = module.in_proj_weight.chunk(3) if module._qkv_same_embed_dim else separate
            biases = [None] * 3 if bias is None else bias.chunk(3)
            inputs = (query, key, value)
            parts = [plain_linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
    q, k, v = (part.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for part in parts)
    return q, k, v


def attend(
    module: nn.MultiheadAttention | CompactMultiheadAttention, call: Arguments, states: list[Tensor]
) -> tuple[Any, list[Tensor]]:
    """Attention of the next positions to themselves and all before: its result, and the longer keys and values."""
    inputs = [call.get(place, word) for place, word in enumerate(("query", "key", "value"))]
    query, key, value = (batch_first(module, part) for part in inputs)
    if inputs[0] is inputs[1] and inputs[1] is inputs[2]:
        query = key = value = batch_first(module, inputs[0])
    q, k, v = _project(module, query, key, value)
    scale = module.scale if isinstance(module, CompactMultiheadAttention) else q.shape[-1] ** -0.5
    new = [torch.cat([old, more], 2) for old, more in zip(states, (k, v), strict=True)]  # (B, h, P + n, d)
    keys, values = new
    q = q * scale
    count = q.shape[2]
    if count == 1:
        scores = q @ keys.transpose(-2, -1)  # (B, h, 1, P + 1)
    else:
        ahead = torch.full((count, count), -1e9, dtype=q.dtype, device=q.device).triu(1)
        old_scores, own_scores = q @ states[0].transpose(-2, -1), q @ k.transpose(-2, -1) + ahead
        scores = torch.cat([old_scores, own_scores], -1)  # (B, h, n, P + n)
    context = scores.softmax(-1) @ values  # (B, h, n, d_v)
    joined = context.transpose(1, 2).flatten(2)  # (B, n, h * d_v)
    output = plain_linear(joined, module.out_proj.weight, module.out_proj.bias)
    return (batch_first(module, output), None), new

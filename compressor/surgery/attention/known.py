"""Attention as common packages write it: found by its layers, without a word of the task.

Only where the four Linear layers and the number of heads are is read off names; whether the heads lie there is found
out like everything else: the model without some heads has to give what the original gives with these silenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.nn.attention.parts import LAYERS, AttentionParts
from compressor.nn.factored_linear import LowRankLinear
from compressor.surgery.attention.declared_sites import declared_modules

if TYPE_CHECKING:
    from collections.abc import Mapping


def _of(query: str, key: str, value: str, output: str, **more: Any) -> AttentionParts:
    return AttentionParts(query=query, key=key, value=value, output=output, **more)


KNOWN: tuple[AttentionParts, ...] = (
    # BERT, RoBERTa, ELECTRA, ViT, ...
    _of("self.query", "self.key", "self.value", "output.dense", heads="self.num_attention_heads",
        widths=("self.all_head_size",)),
    # ALBERT
    _of("query", "key", "value", "dense", heads="num_attention_heads", widths=("all_head_size",)),
    # BART, Marian, OPT, Whisper, wav2vec 2.0, HuBERT, GPT-Neo, ...
    _of("q_proj", "k_proj", "v_proj", "out_proj", heads="num_heads"),
    # Llama, Mistral, Qwen, Gemma, ...
    _of("q_proj", "k_proj", "v_proj", "o_proj", heads="num_heads"),
    _of("q_proj", "k_proj", "v_proj", "o_proj", head_width="head_dim"),
    # Phi
    _of("q_proj", "k_proj", "v_proj", "dense", head_width="head_dim"),
    # DistilBERT
    _of("q_lin", "k_lin", "v_lin", "out_lin", heads="n_heads"),
    # T5
    _of("q", "k", "v", "o", heads="n_heads", widths=("inner_dim",)),
    # GPT-2, and nanoGPT
    _of("c_attn", "c_attn", "c_attn", "c_proj", heads="num_heads", widths=("split_size",)),
    _of("c_attn", "c_attn", "c_attn", "c_proj", heads="n_head", widths=("n_embd",)),
    # timm's ViT
    _of("qkv", "qkv", "qkv", "proj", heads="num_heads"),
)  # fmt: skip
"""How the parts are called; the first that a module has all of counts."""


def with_known(model: nn.Module, declared: Mapping[str, AttentionParts]) -> dict[str, AttentionParts]:
    """What the task says of attention, and the parts of every other module that is written as one of `KNOWN`.

    Args:
        model: The model.
        declared: What the task says; it goes first.
    """
    named = declared_modules(model, declared)
    found = dict(declared)
    for name, module in model.named_modules():
        if name and id(module) not in named and not isinstance(module, nn.MultiheadAttention):
            parts = next((parts for parts in KNOWN if _has(module, parts)), None)
            if parts is not None:
                found[name] = parts
    return found


def _has(module: nn.Module, parts: AttentionParts) -> bool:
    """Whether a module has the four layers, and whole numbers at the other paths."""
    layers = [_at(module, getattr(parts, role)) for role in LAYERS]
    width = () if parts.head_width is None else (parts.head_width,)
    numbers = [_at(module, path) for path in (*parts.head_attributes, *parts.widths, *width)]
    return all(isinstance(layer, (nn.Linear, LowRankLinear)) for layer in layers) and all(
        type(number) is int for number in numbers
    )


def _at(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module

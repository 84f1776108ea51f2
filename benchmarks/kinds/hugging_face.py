"""Classes of the package `transformers` for text, with tiny configurations and random weights."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.kinds.configured import BOTH_SIDES, SMALL, configured, pairs
from benchmarks.kinds.kind import Kind, tokens

_TEXT = {"vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 0}
_ENCODER = {**SMALL, **_TEXT}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "use_cache": False}
_DECODER = {**_ENCODER, **_ENDS}
_GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40, **_ENDS}
_T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24, "num_layers": 2, "use_cache": False}
_PAIRED = {"vocab_size": 50, "max_position_embeddings": 40, **BOTH_SIDES}


def _of(family: str, head: str = "Model", *, example: Any = None, **options: Any) -> Kind:
    return configured(f"{family}{head}", f"{family}Config", example, **options)


_MASKED = tokens(attention_mask=torch.ones_like)
KINDS = [
    _of("Bert", example=_MASKED, **_ENCODER),
    _of("Bert", "ForSequenceClassification", **_ENCODER),
    _of("Bert", "ForTokenClassification", **_ENCODER),
    _of("Bert", "ForQuestionAnswering", example=_MASKED, **_ENCODER),
    _of("Roberta", **_ENCODER),
    _of("XLMRoberta", "ForSequenceClassification", example=_MASKED, **_ENCODER),
    _of("Camembert", **_ENCODER),
    _of("DistilBert", vocab_size=50, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=40,
        pad_token_id=0),
    _of("Electra", embedding_size=16, **_ENCODER),
    _of("Albert", embedding_size=16, **_ENCODER),
    _of("MobileBert", embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16, num_feedforward_networks=1,
        **_ENCODER),
    _of("Deberta", example=_MASKED, **_ENCODER),
    _of("DebertaV2", example=_MASKED, **_ENCODER),
    _of("MPNet", **_ENCODER),
    _of("RoFormer", embedding_size=16, **_ENCODER),
    _of("ConvBert", embedding_size=16, conv_kernel_size=3, head_ratio=2, **_ENCODER),
    _of("SqueezeBert", embedding_size=16, q_groups=1, k_groups=1, v_groups=1, post_attention_groups=1,
        intermediate_groups=1, output_groups=1, **_ENCODER),
    _of("MegatronBert", **_ENCODER),
    _of("ModernBert", bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, **_ENCODER),
    _of("GPT2", causal=True, **_GPT2),
    _of("GPT2", "LMHeadModel", causal=True, **_GPT2),
    _of("GPTNeo", vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=24,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=40, use_cache=False),
    _of("GPTNeoX", **_DECODER),
    _of("OPT", vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=24,
        max_position_embeddings=40, use_cache=False, word_embed_proj_dim=16, causal=True),
    _of("Bloom", vocab_size=50, hidden_size=16, n_layer=2, n_head=4, use_cache=False),
    _of("Llama", "ForCausalLM", name="LlamaForCausalLM, grouped keys", num_key_value_heads=2, causal=True, **_DECODER),
    _of("Llama", "ForCausalLM", causal=True, **_DECODER),
    _of("Mistral", num_key_value_heads=2, sliding_window=None, causal=True, **_DECODER),
    _of("Qwen2", num_key_value_heads=2, causal=True, **_DECODER),
    _of("Qwen3", num_key_value_heads=2, head_dim=4, **_DECODER),
    _of("Gemma", name="Gemma-like GemmaModel", num_key_value_heads=1, head_dim=4, **_DECODER),
    _of("Gemma2", num_key_value_heads=2, head_dim=4, sliding_window=8, **_DECODER),
    _of("Phi", **_DECODER),
    _of("Phi3", num_key_value_heads=2, **_DECODER),
    _of("StableLm", num_key_value_heads=2, **_DECODER),
    _of("Olmo", **_DECODER),
    configured("T5EncoderModel", "T5Config", **_T5),
    _of("T5", example=pairs, **_T5),
    _of("T5", "ForConditionalGeneration", example=pairs, **_T5),
    _of("MT5", example=pairs, **_T5),
    _of("Bart", example=pairs, **_PAIRED),
    _of("Bart", "ForConditionalGeneration", example=pairs, **_PAIRED),
    _of("MBart", example=pairs, pad_token_id=0, **_PAIRED),
    _of("Marian", example=pairs, pad_token_id=0, **_PAIRED),
    _of("Pegasus", example=pairs, pad_token_id=0, **_PAIRED),
    _of("M2M100", example=pairs, pad_token_id=0, **_PAIRED),
    _of("Blenderbot", example=pairs, pad_token_id=0, **_PAIRED),
    _of("Mamba", vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2, use_cache=False, causal=True),
    _of("Rwkv", vocab_size=50, hidden_size=16, attention_hidden_size=16, num_hidden_layers=2, intermediate_size=24,
        context_length=40, use_cache=False, causal=True),
]  # fmt: skip

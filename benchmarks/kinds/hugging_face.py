"""Classes of the package `transformers`, with tiny configurations and random weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from benchmarks.kinds.kind import Kind, tokens
from compressor.task.signature import Call

_SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
}
_ENCODER = {**_SMALL, "max_position_embeddings": 40, "pad_token_id": 0}
_DECODER = {
    **_SMALL,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}


_GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40, "use_cache": False} | {
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 24, "num_layers": 2}
_BOTH_SIDES = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "use_cache": False,
}
_SPEECH = {
    **{name: size for name, size in _SMALL.items() if name != "vocab_size"},
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def _kind(name: str, model: str, config: str, example: Any = None, *, causal: bool = False, **options: Any) -> Kind:
    def build() -> Any:
        return getattr(hf, model)(getattr(hf, config)(**options))

    return Kind(name, build, example or tokens(), causal=causal)


def _masked(ids: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(ids)


def _speech(batch: int, length: int) -> Call:
    return Call(input_values=torch.randn(batch, 400 + 320 * length))


def _spectrogram(mels: int, frames: int) -> Any:
    def example(batch: int, length: int) -> Call:
        ids = torch.randint(3, 50, (batch, length))
        return Call(input_features=torch.randn(batch, mels, frames), decoder_input_ids=ids)

    return example


def _pairs(batch: int, length: int) -> Call:
    ids = torch.randint(3, 50, (batch, length))
    return Call(input_ids=ids, decoder_input_ids=ids.clone())


KINDS = [
    _kind("BertModel", "BertModel", "BertConfig", tokens(attention_mask=_masked), **_ENCODER),
    _kind("BertForSequenceClassification", "BertForSequenceClassification", "BertConfig", **_ENCODER),
    _kind("BertForTokenClassification", "BertForTokenClassification", "BertConfig", **_ENCODER),
    _kind("RobertaModel", "RobertaModel", "RobertaConfig", **_ENCODER),
    _kind(
        "DistilBertModel",
        "DistilBertModel",
        "DistilBertConfig",
        vocab_size=50,
        dim=16,
        n_layers=2,
        n_heads=4,
        hidden_dim=24,
        max_position_embeddings=40,
        pad_token_id=0,
    ),
    _kind("ElectraModel", "ElectraModel", "ElectraConfig", embedding_size=16, **_ENCODER),
    _kind("AlbertModel", "AlbertModel", "AlbertConfig", embedding_size=16, **_ENCODER),
    _kind(
        "MobileBertModel",
        "MobileBertModel",
        "MobileBertConfig",
        embedding_size=16,
        intra_bottleneck_size=16,
        true_hidden_size=16,
        num_feedforward_networks=1,
        **_ENCODER,
    ),
    _kind("GPT2Model", "GPT2Model", "GPT2Config", causal=True, **_GPT2),
    _kind("GPT2LMHeadModel", "GPT2LMHeadModel", "GPT2Config", causal=True, **_GPT2),
    _kind(
        "GPTNeoModel",
        "GPTNeoModel",
        "GPTNeoConfig",
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=4,
        intermediate_size=24,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=40,
        use_cache=False,
    ),
    _kind(
        "OPTModel",
        "OPTModel",
        "OPTConfig",
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=24,
        max_position_embeddings=40,
        use_cache=False,
        word_embed_proj_dim=16,
        causal=True,
    ),
    _kind(
        "LlamaForCausalLM, grouped keys",
        "LlamaForCausalLM",
        "LlamaConfig",
        num_key_value_heads=2,
        causal=True,
        **_DECODER,
    ),
    _kind("LlamaForCausalLM", "LlamaForCausalLM", "LlamaConfig", causal=True, **_DECODER),
    _kind(
        "MistralModel",
        "MistralModel",
        "MistralConfig",
        num_key_value_heads=2,
        sliding_window=None,
        causal=True,
        **_DECODER,
    ),
    _kind("Qwen2Model", "Qwen2Model", "Qwen2Config", num_key_value_heads=2, causal=True, **_DECODER),
    _kind("Gemma-like GemmaModel", "GemmaModel", "GemmaConfig", num_key_value_heads=1, head_dim=4, **_DECODER),
    _kind("PhiModel", "PhiModel", "PhiConfig", **_DECODER),
    _kind("T5EncoderModel", "T5EncoderModel", "T5Config", **_T5),
    _kind("T5Model", "T5Model", "T5Config", _pairs, use_cache=False, **_T5),
    _kind("BartModel", "BartModel", "BartConfig", _pairs, max_position_embeddings=40, **_BOTH_SIDES),
    _kind(
        "MarianModel", "MarianModel", "MarianConfig", _pairs, max_position_embeddings=40, pad_token_id=0, **_BOTH_SIDES
    ),
    _kind(
        "WhisperModel",
        "WhisperModel",
        "WhisperConfig",
        _spectrogram(8, 20),
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **_BOTH_SIDES,
    ),
    _kind("Wav2Vec2Model", "Wav2Vec2Model", "Wav2Vec2Config", _speech, **_SPEECH),
    _kind("Wav2Vec2ForCTC", "Wav2Vec2ForCTC", "Wav2Vec2Config", _speech, vocab_size=20, **_SPEECH),
    _kind("HubertModel", "HubertModel", "HubertConfig", _speech, **_SPEECH),
    _kind(
        "MambaModel",
        "MambaModel",
        "MambaConfig",
        vocab_size=50,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        use_cache=False,
        causal=True,
    ),
    _kind(
        "RwkvModel",
        "RwkvModel",
        "RwkvConfig",
        vocab_size=50,
        hidden_size=16,
        attention_hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=24,
        context_length=40,
        use_cache=False,
        causal=True,
    ),
]

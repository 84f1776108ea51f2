"""Classes of the package `transformers` for speech, time series and pictures, tiny and with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.kinds.configured import BOTH_SIDES, SMALL, configured
from compressor.task.signature import Call

if TYPE_CHECKING:
    from benchmarks.kinds.kind import Example, Kind

_WAVE = {
    **SMALL,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
_WHISPER = {
    "vocab_size": 50,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    **BOTH_SIDES,
}
_SERIES = {
    "prediction_length": 4,
    "context_length": 8,
    "lags_sequence": [1, 2],
    "num_time_features": 1,
    "input_size": 1,
    **BOTH_SIDES,
}
_PATCHES = {"num_input_channels": 2, "context_length": 12, "patch_length": 3, "patch_stride": 3}
_PICTURE = {**SMALL, "image_size": 16, "patch_size": 4}
_ONCE = (7, 7, 7)


def _speech(batch: int, length: int) -> Call:
    return Call(input_values=torch.randn(batch, 400 + 320 * length))


def _spectrogram(mels: int, frames: int) -> Example:
    def example(batch: int, length: int) -> Call:
        ids = torch.randint(3, 50, (batch, length))
        return Call(input_features=torch.randn(batch, mels, frames), decoder_input_ids=ids)

    return example


def _spoken(batch: int, length: int) -> Call:
    ids = torch.randint(3, 50, (batch, length))
    return Call(input_features=torch.randn(batch, 4 * length, 8), decoder_input_ids=ids)


def _series(batch: int, length: int) -> Call:
    past = 10  # context and the largest lag
    return Call(
        past_values=torch.randn(batch, past).abs(),
        past_time_features=torch.randn(batch, past, 1),
        past_observed_mask=torch.ones(batch, past),
        future_values=torch.randn(batch, 4).abs(),
        future_time_features=torch.randn(batch, 4, 1),
    )


def _patches(batch: int, length: int) -> Call:
    return Call(past_values=torch.randn(batch, 12, 2))


def _picture(batch: int, length: int) -> Call:
    return Call(pixel_values=torch.randn(batch, 3, 16, 16))


def _spectrum(batch: int, length: int) -> Call:
    return Call(input_values=torch.randn(batch, 20, 16))


def _codec(batch: int, length: int) -> Call:
    return Call(input_values=torch.randn(batch, 1, 32 * length))


def _of(family: str, example: Any, head: str = "Model", *, times: tuple[int, int, int] = _ONCE, **o: Any) -> Kind:
    return configured(f"{family}{head}", f"{family}Config", example, times=times, **o)


_ANY = (7, 1, 12)
KINDS = [
    _of("Whisper", _spectrogram(8, 20), times=_ANY, **_WHISPER),
    _of("Whisper", _spectrogram(8, 20), "ForConditionalGeneration", times=_ANY, **_WHISPER),
    _of("Speech2Text", _spoken, times=_ANY, vocab_size=50, input_feat_per_channel=8, conv_channels=12,
        max_source_positions=60, max_target_positions=40, num_conv_layers=2, conv_kernel_sizes=(3, 3), **BOTH_SIDES),
    _of("Wav2Vec2", _speech, times=_ANY, **_WAVE),
    _of("Wav2Vec2", _speech, "ForCTC", times=_ANY, vocab_size=20, **_WAVE),
    _of("Wav2Vec2", _speech, "ForSequenceClassification", times=_ANY, classifier_proj_size=12, **_WAVE),
    _of("Wav2Vec2Conformer", _speech, times=_ANY, conv_depthwise_kernel_size=3, **_WAVE),
    _of("Hubert", _speech, times=_ANY, **_WAVE),
    _of("WavLM", _speech, times=_ANY, num_buckets=8, max_bucket_distance=16, **_WAVE),
    _of("UniSpeech", _speech, times=_ANY, **_WAVE),
    _of("UniSpeechSat", _speech, times=_ANY, **_WAVE),
    _of("Data2VecAudio", _speech, times=_ANY, **_WAVE),
    _of("SEW", _speech, times=(8, 2, 12), squeeze_factor=2, conv_stride=(5, 2, 2, 2, 2, 2, 2),
        conv_kernel=(10, 3, 3, 3, 3, 2, 2), feat_extract_norm="group", **_WAVE),
    _of("AST", _spectrum, max_length=20, num_mel_bins=16, patch_size=4, frequency_stride=4, time_stride=4, **SMALL),
    _of("Encodec", _codec, times=_ANY, num_filters=4, hidden_size=16, upsampling_ratios=[4, 4, 2], codebook_size=16,
        codebook_dim=16, num_lstm_layers=1, use_conv_shortcut=True),
    _of("TimeSeriesTransformer", _series, **_SERIES),
    _of("Informer", _series, sampling_factor=2, **_SERIES),
    _of("Autoformer", _series, moving_average=3, label_length=4, **_SERIES),
    _of("PatchTST", _patches, d_model=16, num_attention_heads=4, num_hidden_layers=2, ffn_dim=24, **_PATCHES),
    _of("PatchTST", _patches, "ForPrediction", d_model=16, num_attention_heads=4, num_hidden_layers=2, ffn_dim=24,
        prediction_length=3, **_PATCHES),
    _of("PatchTSMixer", _patches, d_model=16, num_layers=2, **_PATCHES),
    _of("PatchTSMixer", _patches, "ForPrediction", d_model=16, num_layers=2, prediction_length=3, **_PATCHES),
    _of("ViT", _picture, **_PICTURE),
    _of("ViT", _picture, "ForImageClassification", **_PICTURE),
    _of("DeiT", _picture, **_PICTURE),
    _of("Dinov2", _picture, mlp_ratio=2, **_PICTURE),
    _of("Beit", _picture, **_PICTURE),
    _of("Swin", _picture, image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2),
    _of("PoolFormer", _picture, hidden_sizes=[8, 12], depths=[1, 1], patch_sizes=[3, 3], strides=[2, 2],
        padding=[1, 1], num_encoder_blocks=2),
    _of("MobileNetV2", _picture, image_size=16, depth_multiplier=0.25, finegrained_output=False),
    _of("ResNet", _picture, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]),
    _of("ConvNext", _picture, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, patch_size=2),
]  # fmt: skip

"""Classes of the package `torchaudio`, small and with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchaudio import models

from benchmarks.kinds.kind import Kind
from compressor.task.signature import Call


def _frames(size: int) -> Any:
    def example(batch: int, length: int) -> tuple[Tensor, ...]:
        lengths = torch.randint(1, length + 1, (batch,)).index_fill(0, torch.tensor([0]), length)
        return torch.randn(batch, length, size), lengths

    return example


def _wave2vec() -> Any:
    return models.wav2vec2_model(
        "group_norm", [(8, 10, 5), (8, 3, 4), (8, 3, 4), (8, 2, 4)], False, 16, 0.0, 4, 2, 2, 4, 0.0, 24, 0.0, 0.0,
        False, 0.0, 20,
    )  # fmt: skip


def _wave(batch: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 400 + 320 * length),)


def _wave_rnn(batch: int, length: int) -> tuple[Tensor, ...]:
    frames = length + 4
    return torch.randn(batch, 1, (frames - 4) * 8), torch.randn(batch, 1, 6, frames)


def _pronounced(batch: int, length: int) -> Call:
    return Call(
        tokens=torch.randint(0, 20, (batch, 9)),
        token_lengths=torch.full((batch,), 9),
        mel_specgram=torch.randn(batch, 6, length),
        mel_specgram_lengths=torch.full((batch,), length),
    )


KINDS = [
    Kind("Wav2Letter", lambda: models.Wav2Letter(num_classes=9, input_type="mfcc", num_features=6),
         lambda batch, length: (torch.randn(batch, 6, 16 * length),)),
    Kind("DeepSpeech", lambda: models.DeepSpeech(6, n_hidden=16, n_class=9),
         lambda batch, length: (torch.randn(batch, 1, length, 6),)),
    Kind("Conformer of torchaudio", lambda: models.Conformer(16, 4, 24, 2, 3), _frames(16)),
    Kind("ConvTasNet", lambda: models.ConvTasNet(2, 8, 16, 3, 8, 12, 2, 2),
         lambda batch, length: (torch.randn(batch, 1, 64 * length),)),
    Kind("WaveRNN", lambda: models.WaveRNN([2, 2, 2], 12, 8, 2, 16, 16, 5, 6, 8, 16), _wave_rnn, min_length=2),
    Kind("Wav2Vec2Model of torchaudio", _wave2vec, _wave),
    Kind("Tacotron2", lambda: models.Tacotron2(
        n_mels=6, n_symbol=20, symbol_embedding_dim=12, encoder_embedding_dim=12, decoder_rnn_dim=16,
        attention_rnn_dim=16, attention_hidden_dim=8, attention_location_n_filter=4,
        prenet_dim=8, postnet_embedding_dim=8), _pronounced, min_length=2),
]  # fmt: skip

"""Who said it? A GRU (the default) and an LSTM; `--task samples/japanese_vowels/task.py:Lstm` chooses the second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from vowels import Batch, Net, correct, test_data, train_data, validation_data

from compressor import Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

HERE = Path(__file__).parent


class Gru(Task):
    """One GRU layer of 128 units."""

    inputs: Mapping[str, Mapping[int, str]] = {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length, min_length, max_length = 16, 1, 64

    def model(self) -> nn.Module:
        return load_weights(Net(nn.GRU), HERE / "gru.safetensors")

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (batch,), generator=random)
        lengths[0] = length
        return torch.randn(batch, length, 12, generator=random), lengths

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        (features, lengths), speakers = train_data()
        for chosen in torch.randperm(len(speakers), generator=generator).split(16):
            longest = int(lengths[chosen].max())
            yield (features[chosen, :longest], lengths[chosen]), speakers[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target, label_smoothing=0.1)

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, test_data())

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, validation_data())


class Lstm(Gru):
    """One LSTM layer of 128 units."""

    def model(self) -> nn.Module:
        return load_weights(Net(nn.LSTM), HERE / "lstm.safetensors")

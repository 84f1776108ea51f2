"""The GRU of `task.py` as an accelerator of fixed shapes runs it: every sequence padded to the longest of all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from vowels import LONGEST, Batch, Net, correct, padded, test_data, train_data, validation_data

from compressor import Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward


class Padded(Task):
    """One GRU layer of 128 units that is given 29 steps, and told how many of them are real."""

    inputs: Mapping[str, Mapping[int, str]] = {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length = min_length = max_length = LONGEST

    def model(self) -> nn.Module:
        return load_weights(Net(nn.GRU), Path(__file__).parent / "gru.safetensors")

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (batch,), generator=random)
        return torch.randn(batch, length, 12, generator=random), lengths

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        (features, lengths), speakers = padded(train_data())
        for chosen in torch.randperm(len(speakers), generator=generator).split(16):
            yield (features[chosen], lengths[chosen]), speakers[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target, label_smoothing=0.1)

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, padded(test_data()))

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, padded(validation_data()))

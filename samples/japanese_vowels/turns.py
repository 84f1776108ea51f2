"""Who is speaking now? The same recordings one after the other without a pause, and an answer at every step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from vowels import CHANNELS, NOISE, SPEAKERS, UNITS, Batch, test_data, train_data, validation_data

from compressor import Evaluation, Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

TURNS = 5
"""Recordings of a conversation, each of any of the nine men."""
CONVERSATIONS = 16
"""Of a batch."""
ORDERS = 4
"""How often an epoch goes through the recordings, every time in another order."""
NOBODY = -100
"""Target behind the end of a conversation, which no loss counts."""


class Tagger(nn.Module):
    """A GRU layer, and a Linear layer on every step of it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("deviation", torch.ones(CHANNELS))
        self.recurrent = nn.GRU(CHANNELS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, SPEAKERS)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, T, 12) to the speakers' logits at every step (B, T, 9)."""
        scaled = (features - self.mean) / self.deviation
        if self.training:
            scaled = scaled + NOISE * torch.randn_like(scaled)
        logits: Tensor = self.output(self.recurrent(scaled)[0])
        return logits


def conversations(data: Batch, order: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Recordings in an order (N,), five in a row: features (T, 12), speakers (T,) and recordings (T,) of each step."""
    (features, lengths), speakers = data
    joined = []
    for chosen in order.split(TURNS):
        steps = lengths[chosen]
        heard = torch.cat([features[which, : lengths[which]] for which in chosen])
        joined.append((heard, speakers[chosen].repeat_interleave(steps), chosen.repeat_interleave(steps)))
    return joined


class Turns(Task):
    """One GRU layer of 128 units that names the speaker at every step, from what it has heard so far."""

    metric = "accuracy of a step"
    inputs: Mapping[str, Mapping[int, str]] = {"features": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch", 1: "time"}}
    length, min_length, max_length = 64, 1, 256

    def model(self) -> nn.Module:
        return load_weights(Tagger(), Path(__file__).parent / "tagger.safetensors")

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        """Real steps, of recordings strung together."""
        (features, lengths), _ = validation_data()
        steps = features[torch.arange(features.shape[1]) < lengths[:, None]]  # (steps, 12)
        return (steps[torch.arange(batch * length) % len(steps)].view(batch, length, CHANNELS),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        """Conversations padded behind their end to the longest of the batch."""
        data = train_data()
        every = [
            conversation
            for _ in range(ORDERS)
            for conversation in conversations(data, torch.randperm(len(data[1]), generator=generator))
        ]
        for start in range(0, len(every), CONVERSATIONS):
            heard, speakers, _ = zip(*every[start : start + CONVERSATIONS], strict=True)
            yield (pad_sequence(heard, batch_first=True),), pad_sequence(speakers, True, NOBODY)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            outputs.flatten(0, 1), target.flatten(), ignore_index=NOBODY, label_smoothing=0.1
        )

    def evaluate(self, forward: Forward) -> Evaluation:
        return score(forward, test_data())

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, validation_data())


def score(forward: Forward, data: Batch) -> Evaluation:
    """1 where a step's speaker was named, else 0; the steps of one recording belong together."""
    right, recordings = [], []
    for heard, speakers, which in conversations(
        data, torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(0))
    ):
        named = torch.as_tensor(forward(heard[None]))[0].argmax(-1)
        right.append((named == speakers).double())
        recordings.append(which)
    return Evaluation(per_sample=torch.cat(right), groups=torch.cat(recordings))

"""Poolings that a model calls in different ways, and a task for them."""

from __future__ import annotations

import math

import torch
from torch import nn

from compressor.task.contract import Task

CHANNELS, WIDTH, HOPS, HIDDEN = 5, 6, 3, 23


class Attentive(nn.Module):
    """Structured self-attentive pooling; `mask` is whatever `weigh` of a subclass makes of it."""

    def __init__(self, width=WIDTH, hops=HOPS):
        super().__init__()
        self.first, self.second = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, hops)

    def weigh(self, scores, mask):
        return scores if mask is None else scores.masked_fill(~mask[:, :, None], -math.inf)

    def forward(self, states, mask=None):
        weights = self.weigh(self.second(torch.tanh(self.first(states))), mask).softmax(1)
        return (weights.transpose(1, 2) @ states).flatten(1)


class Padded(Attentive):
    def weigh(self, scores, mask):
        return scores.masked_fill(mask[:, :, None], -1e9)


class Added(Attentive):
    def weigh(self, scores, mask):
        return scores + mask[:, :, None]


class Numbers(Attentive):
    def weigh(self, scores, mask):
        return scores.masked_fill((mask == 0).transpose(1, 2), -1e9)  # (B, 1, T)


class Lengths(Attentive):
    def weigh(self, scores, mask):
        return super().weigh(scores, torch.arange(scores.size(1)) < mask[:, None])


class Zeros(Attentive):
    def forward(self, states):
        return super().forward(states, (states != 0).any(-1))


class TimeFirst(Attentive):
    def forward(self, mask, states):
        return super().forward(states.transpose(0, 1), mask)


class FeaturesFirst(Attentive):
    def forward(self, states):
        return super().forward(states.transpose(1, 2))


class Query(nn.Module):
    """A single query over the steps."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, query, states, padding):
        assert query is states
        found = self.attention(self.query.expand(len(states), -1, -1), states, states, key_padding_mask=padding)
        return found[0][:, 0]


class Encoder(nn.Module):
    """Self-attention, then a mean."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 7, batch_first=True)

    def forward(self, states, real):
        mixed = self.layer(states, src_key_padding_mask=~real)
        return (mixed * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)


CALLS = {
    "Attentive": (Attentive, lambda pool, states, real: pool(states, mask=real)),
    "no mask": (Attentive, lambda pool, states, real: pool(states)),
    "Padded": (Padded, lambda pool, states, real: pool(states, ~real)),
    "Added": (Added, lambda pool, states, real: pool(states, torch.zeros(real.shape).masked_fill(~real, -math.inf))),
    "Numbers": (Numbers, lambda pool, states, real: pool(mask=real[:, None].long(), states=states)),
    "Lengths": (Lengths, lambda pool, states, real: pool(states, real.sum(1))),
    "Zeros": (Zeros, lambda pool, states, real: pool(states * real[:, :, None])),
    "TimeFirst": (TimeFirst, lambda pool, states, real: pool(real, states.transpose(0, 1))),
    "FeaturesFirst": (FeaturesFirst, lambda pool, states, real: pool(states.transpose(1, 2))),
    "Query": (Query, lambda pool, states, real: pool(states, states, padding=~real)),
    "Encoder": (Encoder, lambda pool, states, real: pool(states, real)),
}
EXPECTED = {
    "Attentive": ("states", (0, 1, 2), "mask", "real", HOPS),
    "no mask": ("states", (0, 1, 2), None, None, HOPS),
    "Padded": ("states", (0, 1, 2), "mask", "padding", HOPS),
    "Added": ("states", (0, 1, 2), "mask", "padding", HOPS),
    "Numbers": ("states", (0, 1, 2), "mask", "real", HOPS),
    "Lengths": ("states", (0, 1, 2), "mask", "lengths", HOPS),
    "Zeros": ("states", (0, 1, 2), None, "zeros", HOPS),
    "TimeFirst": ("states", (1, 0, 2), "mask", "real", HOPS),
    "FeaturesFirst": ("states", (0, 2, 1), None, None, HOPS),
    "Query": ("query", (0, 1, 2), "padding", "padding", None),
    "Encoder": ("states", (0, 1, 2), "real", "real", None),
}


class Model(nn.Module):
    """A GRU, a pooling of the user's and a Linear layer, on features with lengths."""

    def __init__(self, kind="Attentive", size=None):
        super().__init__()
        build, self.call = CALLS[kind] if isinstance(kind, str) else kind
        self.rnn = nn.GRU(CHANNELS, WIDTH, batch_first=True)
        self.pooling = build()
        self.head = nn.Linear(size or (WIDTH if kind in ("Query", "Encoder") else HOPS * WIDTH), 2)

    def forward(self, features, lengths):
        real = torch.arange(features.size(1), device=features.device) < lengths[:, None]
        return self.head(self.call(self.pooling, self.rnn(features)[0], real))


class Loudest(Task):
    """Which of two channels is larger at the loudest step?"""

    length, min_length = 11, 2

    def model(self):
        return Model()

    def example(self, batch, length):
        generator = torch.Generator().manual_seed(3)
        lengths = torch.randint(1, length + 1, (batch,), generator=generator)
        lengths[0] = length
        return torch.randn(batch, length, CHANNELS, generator=generator), lengths

    def batches(self, generator):
        for _ in range(8):
            lengths = torch.randint(1, 12, (17,), generator=generator)
            features = torch.randn(17, 11, CHANNELS, generator=generator)
            yield (features, lengths), (features[:, 0, 0] > features[:, 0, 1]).long()

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward):
        return 0.0


def model_of(kind="Attentive", **options):
    torch.manual_seed(0)
    return Model(kind, **options).eval()

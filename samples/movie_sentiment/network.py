"""Networks that tell good reviews from bad: words, a GRU both ways or a Transformer, pooling, two classes.

In a project of yours, the code that you already have.
"""

from __future__ import annotations

import torch
from reviews import LONGEST, WORDS
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

EMBEDDING = 32
UNITS = 64
HIDDEN, HOPS = 350, 4
DROPPED = 0.5
WIDTH, HEADS, LAYERS = 64, 4, 2
DROPPED_INSIDE = 0.2
"""In the layers of the Transformer."""


class SelfAttentivePooling(nn.Module):
    """Several weighted means of a sequence, M = softmax(W2 tanh(W1 H^T)) H, row after row (Lin et al., 2017)."""

    def __init__(self, width: int, hidden: int = HIDDEN, hops: int = HOPS) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden, bias=False)
        self.hops = nn.Linear(hidden, hops, bias=False)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """States (B, T, D) and which of them are words (B, T) to (B, hops * D)."""
        scores = self.hops(torch.tanh(self.hidden(states)))  # (B, T, hops)
        weights = scores.masked_fill(~real[:, :, None], -1e4).softmax(1)
        return (weights.transpose(1, 2) @ states).flatten(1)


class Classifier(nn.Module):
    """Signs of words to the logits of bad and good."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, EMBEDDING)
        nn.init.normal_(self.words.weight, std=0.3)
        self.recurrent = nn.GRU(EMBEDDING, UNITS, batch_first=True, bidirectional=True)
        self.pooling = SelfAttentivePooling(2 * UNITS)
        self.output = nn.Linear(HOPS * 2 * UNITS, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Signs (B, T) and lengths (B,), 1..T, to logits (B, 2); what stands behind a sentence makes no difference."""
        embedded = nn.functional.dropout(self.words(words), DROPPED, self.training)
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0]  # (B, longest, D)
        states = nn.functional.dropout(states, DROPPED, self.training)
        real = torch.arange(states.shape[1], device=words.device) < lengths[:, None]  # (B, longest)
        logits: Tensor = self.output(self.pooling(states, real))
        return logits


class TransformerClassifier(nn.Module):
    """The same with a Transformer encoder instead of the GRU: signs of words to the logits of bad and good."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, EMBEDDING)
        nn.init.normal_(self.words.weight, std=0.3)
        self.widen = nn.Linear(EMBEDDING, WIDTH)
        self.places = nn.Parameter(torch.randn(LONGEST, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, DROPPED_INSIDE, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.pooling = SelfAttentivePooling(WIDTH)
        self.output = nn.Linear(HOPS * WIDTH, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Signs (B, T) and lengths (B,), 1..T, to logits (B, 2); what stands behind a sentence makes no difference."""
        count = words.shape[1]
        real = torch.arange(count, device=words.device) < lengths[:, None]  # (B, T)
        embedded = self.widen(nn.functional.dropout(self.words(words), DROPPED, self.training)) + self.places[:count]
        states = self.encoder(embedded, src_key_padding_mask=~real)  # (B, T, D)
        states = nn.functional.dropout(states, DROPPED, self.training)
        logits: Tensor = self.output(self.pooling(states, real))
        return logits

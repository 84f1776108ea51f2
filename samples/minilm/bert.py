"""The sentence encoder all-MiniLM-L6-v2: BERT, 6 layers of 384, 12 heads. In a project of yours, code you already have.

Written here with PyTorch alone: the package's own code is not needed and does not run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORDS, POSITIONS = 30_522, 512
WIDTH, HEADS, HIDDEN, LAYERS = 384, 12, 1536, 6
_EPSILON = 1e-12
_MASKED = -1e4
"""Added to the scores of padding: exp of it is exactly 0, and it is finite in float16."""

_NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.LayerNorm": "norm",
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "output_norm",
}
"""The checkpoint's names -> those of the modules here."""


class Attention(nn.Module):
    """Every position looks at every real one, with several heads."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """States (B, T, E) and what is added to the scores (B, 1, 1, T) to (B, T, E)."""
        query, key, value = (self._by_head(layer(states)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + bias  # (B, h, T, T)
        mixed: Tensor = self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        return mixed

    def _by_head(self, projected: Tensor) -> Tensor:
        """(B, T, h * d) to (B, h, T, d)."""
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention and a feed-forward network, each with a shortcut and normalised behind it."""

    def __init__(self, width: int = WIDTH, num_heads: int = HEADS, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.attention_norm = nn.LayerNorm(width, _EPSILON)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width, _EPSILON)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """States (B, T, E) to states; `bias` as for the attention."""
        states = self.attention_norm(states + self.attention(states, bias))
        normed: Tensor = self.output_norm(states + self.narrow(nn.functional.gelu(self.widen(states))))
        return normed


class SentenceEncoder(nn.Module):
    """Word pieces to the mean of their last states, of length 1."""

    def __init__(
        self,
        words: int = WORDS,
        width: int = WIDTH,
        num_heads: int = HEADS,
        hidden: int = HIDDEN,
        layers: int = LAYERS,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Embedding(POSITIONS, width)
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.layers = nn.ModuleList(Layer(width, num_heads, hidden) for _ in range(layers))

    def forward(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """Numbers of pieces (B, T) and 1 where one is real, 0 where it is padding (B, T), to embeddings (B, E)."""
        position = torch.arange(pieces.shape[1], device=pieces.device)
        states = self.norm(self.words(pieces) + self.positions(position))  # (B, T, E)
        real = mask.to(states.dtype)
        bias = (1.0 - real)[:, None, None] * _MASKED  # (B, 1, 1, T)
        for layer in self.layers:
            states = layer(states, bias)
        total = (states * real[:, :, None]).sum(1)
        return nn.functional.normalize(total / real.sum(1, keepdim=True).clamp(min=1.0), dim=1)


def load(path: Path) -> SentenceEncoder:
    """The encoder with the weights of the package."""
    model = SentenceEncoder()
    model.load_state_dict(state_dict(load_file(path)))
    return model.eval()


def state_dict(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of `SentenceEncoder`.

    Sentences come one at a time and not in pairs, so the embedding of a pair's first part is added to every position;
    it is put into the positions' own. The pooler, which sentence embeddings do not use, is left out.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in checkpoint.items():
        module, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)
        if layer:
            state[f"layers.{layer[1]}.{_NAMES[layer[2]]}.{kind}"] = tensor
        elif module in _NAMES:
            state[f"{_NAMES[module]}.{kind}"] = tensor
    state["positions.weight"] = state["positions.weight"] + checkpoint["embeddings.token_type_embeddings.weight"][0]
    return state

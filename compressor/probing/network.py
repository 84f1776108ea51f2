"""The small network of a probe: an embedding, the layers of an architecture, and a linear readout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compressor.probing.architecture import Architecture

_LONGEST_WAVE: Final = 100.0
"""Of the position encoding, over 2 pi: sequences of a probe are some ten to a hundred positions long."""


class Network(nn.Module):
    """Embedding (and positions) -> an architecture -> linear readout: tokens (B, T) to scores (B, T, classes)."""

    def __init__(self, architecture: Architecture, width: int, tokens: int, classes: int) -> None:
        """With random weights from PyTorch's global generator; the architecture is one that `scaled(width)` gave."""
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.has_positions = architecture.has_positions
        self.layers = architecture.build(width)
        self.readout = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the classes at every position."""
        x = self.embedding(tokens)  # (B, T, W)
        if self.has_positions:
            x = x + sinusoids(x.shape[1], x.shape[2])
        scores: Tensor = self.readout(self.layers(x))  # (B, T, classes)
        return scores


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (T, W): sines, then cosines, of t * 100^(-2i / W) for i < W / 2 (Vaswani et al. 2017, section 3.5).

    The longest wave there has 10,000 instead of 100.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(_LONGEST_WAVE) / width))  # (ceil(W / 2),)
    angles = torch.arange(length)[:, None] * rates  # (T, ceil(W / 2))
    return torch.cat((angles.sin(), angles.cos()), 1)[:, :width]

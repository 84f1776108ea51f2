"""The small network of a probe: an embedding, the layers of an architecture, and a linear readout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention

if TYPE_CHECKING:
    from compressor.probing.architecture import Architecture

Mixer = Literal["attention", "aaren"]
"""What mixes positions in a layer of a Transformer encoder."""
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


class EncoderStack(nn.Module):
    """PyTorch's encoder layers with a causal mask, some of them with another mixer than attention."""

    def __init__(self, mixers: tuple[Mixer, ...], heads: int, width: int) -> None:
        """With random weights; norm first, feed-forward of twice the width, no dropout."""
        super().__init__()
        self.blocks = nn.ModuleList()
        for mixer in mixers:
            block = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            if mixer == "aaren":
                block.self_attn = _aaren(block.self_attn)  # type: ignore[assignment]
            self.blocks.append(block)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])  # (T, T)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        normed: Tensor = self.norm(x)
        return normed


class OutputsOnly(nn.Module):
    """A recurrent layer without its states."""

    def __init__(self, layer: nn.Module) -> None:
        """Around a layer."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The sequence of its outputs."""
        outputs: Tensor = self.layer(x)[0]
        return outputs


def _aaren(attention: nn.MultiheadAttention) -> AarenAttention:
    """An Aaren with the initial weights of an attention, and a random query."""
    aaren = AarenAttention.from_attention(attention)
    nn.init.normal_(aaren.query)
    return aaren

"""The layers that a probe builds an architecture of."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention

Mixer = Literal["attention", "aaren"]
"""What mixes positions in a layer of a Transformer encoder."""


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

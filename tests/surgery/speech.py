"""Small models of speech and time series, and attention in the ways in which it is called."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16


class Block(nn.Module):
    """A residual of any layer over channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class Swapped(nn.Module):
    """(B, T, F) for layers of channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


class Causal(nn.Module):
    """Padding on the left in front of a convolution."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.pad, self.conv = 2 * dilation, nn.Conv1d(inputs, outputs, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (self.pad, 0)))


class Gated(nn.Module):
    """WaveNet's unit: tanh times sigmoid, a residual and a skip."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.both, self.out = Causal(width, 2 * width, dilation), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.both(x).chunk(2, 1)
        return x + self.out(torch.tanh(values) * torch.sigmoid(gates))


class Masked(nn.Module):
    """An encoder with a causal mask, as PyTorch's tutorial has it, with or without the hint."""

    def __init__(self, *, hint: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 24, 0.0, batch_first=True)
        self.enter, self.encoder, self.head = nn.Linear(5, WIDTH), nn.TransformerEncoder(layer, 2), nn.Linear(WIDTH, 3)
        self.hint = hint

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.head(self.encoder(self.enter(x), mask=mask, is_causal=True if self.hint else None))


class Both(nn.Module):
    """`nn.Transformer` with a causal mask of its targets."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, WIDTH)
        self.both = nn.Transformer(WIDTH, 4, 1, 1, 24, 0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        y = self.enter(x)
        return self.head(self.both(y, y, tgt_mask=mask))


class RowMasked(nn.Module):
    """Attention whose first row is masked whole."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        steps = torch.arange(x.size(1))
        mask = steps[:, None] > steps[None]
        heads = y.unsqueeze(1)
        y = y + nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask).squeeze(1)
        return self.head(torch.relu(self.up(y)))


class Automatic(nn.Module):
    """Half precision inside of `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.up, self.head = nn.GRU(5, WIDTH, batch_first=True), nn.Linear(WIDTH, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = torch.relu(self.up(self.rnn(x)[0]))
        return self.head(y.float())


class Conformer(nn.Module):
    """Half feed-forward, attention, a convolution with GLU and batch normalisation, half feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.first, self.last = (
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.SiLU(), nn.Linear(24, WIDTH)) for _ in range(2)
        )
        self.norm, self.attention = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.convolution = nn.Sequential(
            nn.Conv1d(WIDTH, 2 * WIDTH, 1), nn.GLU(1), nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
            nn.BatchNorm1d(WIDTH), nn.SiLU(), nn.Conv1d(WIDTH, WIDTH, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + 0.5 * self.first(x)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return self.head(x + 0.5 * self.last(x))

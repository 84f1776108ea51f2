"""Causal Transformers that name a series or go on with it; in a project of yours, the code you already have.

Nothing tells them where in the series a step is: there is no position code, so that a step form with a state (Aaren)
can go on for ever. What came shortly before, a step sees in its own frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 32, 4, 2
DROPPED = 0.1
NOISE = 0.1
"""Deviation of the noise on scaled frames in training; some sets have 40 series to learn from."""
_SMALLEST_DEVIATION = 1e-3


def encoder() -> nn.TransformerEncoder:
    """Two layers, each normalised in front, and one more normalisation behind them."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, DROPPED, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)


def later(steps: int, device: torch.device) -> Tensor:
    """True where the second step is later than the first (T, T): what a causal network must not look at."""
    return torch.ones(steps, steps, dtype=torch.bool, device=device).triu(1)


class Classifier(nn.Module):
    """A series in frames to the logits of its classes, read off behind the last frame.

    The features' mean and deviation are buffers, so that an exported file takes raw frames.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.embed = nn.Linear(features, WIDTH)
        self.encoder = encoder()
        self.output = nn.Linear(WIDTH, classes)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Frames (B, T, F) and their number (B,), 1..T, to logits (B, classes)."""
        scaled = (frames - self.mean) / self.deviation
        if self.training:
            scaled = scaled + NOISE * torch.randn_like(scaled)
        states = self.encoder(self.embed(scaled), mask=later(frames.shape[1], frames.device), is_causal=True)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        logits: Tensor = self.output(states[rows, lengths - 1])  # (B, classes)
        return logits


class Forecaster(nn.Module):
    """A window of a series to the steps that follow it, each channel normalised by its own mean and deviation there.

    The normalisation is that of the non-stationary Transformer (Liu et al., arXiv 2205.14415), which the paper on Aaren
    uses; its other part, attention that is told of the deviations, is left out.
    """

    def __init__(self, channels: int, clock: int, horizon: int) -> None:
        super().__init__()
        self.channels = channels
        self.horizon = horizon
        self.embed = nn.Linear(channels + clock, WIDTH)
        self.encoder = encoder()
        self.output = nn.Linear(WIDTH, horizon * channels)

    def forward(self, window: Tensor) -> Tensor:
        """A window (B, T, channels + clock), the clock behind the channels, to what follows (B, horizon, channels)."""
        past, clock = window[:, :, : self.channels], window[:, :, self.channels :]
        mean = past.mean(1, keepdim=True)  # (B, 1, C)
        deviation = ((past - mean).square().mean(1, keepdim=True) + _SMALLEST_DEVIATION**2).sqrt()
        steps = self.embed(torch.cat([(past - mean) / deviation, clock], dim=2))
        states = self.encoder(steps, mask=later(window.shape[1], window.device), is_causal=True)
        ahead = self.output(states[:, -1]).unflatten(1, (self.horizon, self.channels))
        forecast: Tensor = ahead * deviation + mean
        return forecast

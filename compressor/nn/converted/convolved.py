"""What linear systems make of whole sequences, from their answers to a pulse: by FFT or as a convolution.

Both take channels (B, P, T, n), n sequences of each, and the kernel (P, T), and give the same shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def by_fft(channels: Tensor, kernel: Tensor) -> Tensor:
    """In O(T log T)."""
    length = channels.shape[2]
    spectrum = torch.fft.rfft(channels, 2 * length, dim=2) * torch.fft.rfft(kernel, 2 * length).unsqueeze(-1)
    filtered: Tensor = torch.fft.irfft(spectrum, 2 * length, dim=2)[:, :, :length]
    return filtered


def by_convolution(channels: Tensor, kernel: Tensor) -> Tensor:
    """As a depthwise convolution, which a file has."""
    weight = kernel.flip(1)[:, None, :, None]  # (P, 1, T, 1), the oldest first
    padded = nn.functional.pad(channels, (0, 0, channels.shape[2] - 1, 0))
    return nn.functional.conv2d(padded, weight, groups=channels.shape[1])

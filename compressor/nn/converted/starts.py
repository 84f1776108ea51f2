"""What several targets start from: channels along the inputs that drove the old layer, and random units behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MIXING, _GATING = 0.5, 0.3
"""How strongly queries and keys, and gates, see the inputs."""


def start_channels(project: nn.Linear, x: Tensor, drive: Tensor) -> int:
    """Let `project` give the inputs along the directions that drove the old layer most, of unit variance, in place.

    The directions are the eigenvectors of D^T D in inputs of unit variance, D the `drive`. They are repeated until all
    channels have one.

    Args:
        project: Inputs to channels.
        x: Inputs (N, I).
        drive: (G, I).

    Returns:
        The number of different directions: channel c has number c modulo it.
    """
    x, drive = x.cpu().double(), drive.cpu().double()
    mean, deviation = x.mean(0), x.std(0, unbiased=False).clamp_min(1e-6)
    _, vectors = torch.linalg.eigh((drive * deviation).T @ (drive * deviation))  # ascending
    channels = project.out_features
    spread = min(x.shape[1], max(1, channels // 2))
    directions = vectors.flip(1)[:, :spread].T  # (r, I), of inputs of unit variance
    scores = ((x - mean) / deviation) @ directions.T
    rows = directions / deviation / scores.std(0, unbiased=False).clamp_min(1e-6)[:, None]
    rows = rows.repeat(-(-channels // spread), 1)[:channels]
    with torch.no_grad():
        project.weight.copy_(rows)
        project.bias.copy_(-rows @ mean)
    return spread


def start_units(expand: nn.Linear, generator: torch.Generator) -> None:
    """Let units read random directions in pairs, w and -w, so that their differences carry all channels, in place."""
    half = -(-expand.out_features // 2)
    rows = torch.randn(half, expand.in_features, generator=generator, dtype=torch.float64)
    rows = rows / rows.norm(dim=1, keepdim=True)
    bias = torch.randn(expand.out_features, generator=generator, dtype=torch.float64) * 0.5
    with torch.no_grad():
        expand.weight.copy_(torch.cat([rows, -rows])[: expand.out_features])
        expand.bias.copy_(bias)


def start_heads(
    project: nn.Linear, x: Tensor, drive: Tensor, generator: torch.Generator, *, values: int, gates: Tensor
) -> None:
    """Let `project` give what heads with queries and keys read, in place.

    Values are channels along the directions that drove the old layer (`start_channels`); queries and keys are random
    mixtures of them with random offsets, and gates see a little of others.

    Args:
        project: Inputs to queries and keys, `values` values and g gates, one head after the other.
        x: Inputs (N, I).
        drive: (G, I).
        generator: On the CPU.
        values: Of each head.
        gates: What they are on average (h, g), before their activation.
    """
    heads, width = len(gates), len(gates) * values
    channels = nn.Linear(x.shape[1], width, dtype=torch.float64)
    start_channels(channels, x, drive)
    rows, offsets = channels.weight.detach(), channels.bias.detach()  # (h d, I), of unit variance
    products = project.out_features // heads - values - gates.shape[1]
    chosen = torch.randn(heads, products, generator=generator, dtype=torch.float64)
    weights, biases = [rows.unflatten(0, (heads, -1))], [offsets.unflatten(0, (heads, -1))]
    for place, strength, bias in ((0, _MIXING, chosen), (2, _GATING, gates)):
        mixed = torch.randn(*bias.shape, width, generator=generator, dtype=torch.float64)
        mixed = strength * mixed / mixed.norm(dim=-1, keepdim=True)  # (h, n, h d)
        weights.insert(place, mixed @ rows)
        biases.insert(place, mixed @ offsets + bias)
    with torch.no_grad():
        project.weight.copy_(torch.cat(weights, 1).flatten(0, 1))
        project.bias.copy_(torch.cat(biases, 1).flatten())

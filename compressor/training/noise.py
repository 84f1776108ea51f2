"""Annealed Gaussian gradient noise (Neelakantan et al., arXiv 1511.06807, section 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def noise_std(step: int, eta: float, gamma: float = 0.55) -> float:
    """Standard deviation of the noise at optimizer step t = 0, 1, ...: the square root of eta / (1 + t)^gamma."""
    return math.sqrt(eta / (1.0 + step) ** gamma)


def add_noise_(gradients: Sequence[Tensor], std: float, generator: torch.Generator) -> None:
    """Add independent N(0, std^2) to every component, in place.

    Args:
        gradients: Dense tensors of one device, already clipped (the paper's order; large gradients drown the noise).
        std: Standard deviation, not the variance; see `noise_std`.
        generator: On the gradients' device, or the CPU. One draw of all the components together, so the result does not
            depend on how they are split.
    """
    if not gradients:
        return
    sizes = [gradient.numel() for gradient in gradients]
    flat = torch.randn(sum(sizes), generator=generator, device=generator.device).mul_(std)  # (sum of sizes,)
    flat = flat.to(gradients[0].device)
    noise = [
        part.view(gradient.shape).to(gradient.dtype)
        for part, gradient in zip(torch.split(flat, sizes), gradients, strict=True)
    ]
    torch._foreach_add_(list(gradients), noise)

"""Tensors that tests draw."""

from __future__ import annotations

import torch


def normal(*shape, seed=0):
    """From a standard normal distribution, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

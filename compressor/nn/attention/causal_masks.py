"""What a mask of attention hides, and whether that is exactly what comes later."""

from __future__ import annotations

import torch
from torch import Tensor

_HIDDEN = -1e4
"""A number in a mask is at most this if a key must not be seen."""


def is_causal_mask(mask: Tensor) -> bool:
    """Whether a mask (..., N, N) hides exactly what lies behind: True or very low above the diagonal, else False or 0.

    Of one position there is nothing to hide: every mask that shows it is causal.
    """
    if mask.shape[-1] != mask.shape[-2]:
        return False
    above = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).triu(1)
    if not bool((hidden(mask) == above).all()):
        return False
    return mask.dtype == torch.bool or not bool(mask.masked_fill(above, 0.0).any())


def hidden(mask: Tensor) -> Tensor:
    """Where a mask hides a key, True: where it is True, or a very low number."""
    return mask if mask.dtype == torch.bool else mask <= _HIDDEN

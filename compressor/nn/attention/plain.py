"""PyTorch's attention as separate operations, whatever values its masks have."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.modules import transformer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within the block, attention takes the path of plain operators, and a mask is not compared with a causal one.

    The fused path differs at padded positions, which it may set to zero and trim; training uses the plain one. Encoders
    of PyTorch that are given a mask without `is_causal` compare its values with a causal mask, which no tracer can
    follow. The outputs are the same without: the mask is applied either way.
    """
    enabled, detect = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = _as_told
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
        transformer._detect_is_causal_mask = detect


def _as_told(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """What the caller says, and not what the values of the mask say."""
    return is_causal is True

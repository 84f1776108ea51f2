"""What a matrix in few bits costs the outputs, from measurements at two numbers of bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BITS = (32, 16, 8, 6, 5, 4, 3, 2)
"""What a weight may have in a file, from the most exact."""
ANCHORS = (4, 8)
"""Bits of which the error of the outputs is measured."""


def losses_by_bits(measured: Mapping[int, float], own: Mapping[int, float]) -> dict[int, float]:
    """Bits -> loss, never rising with the bits.

    Args:
        measured: Relative error of the outputs in 4 and in 8 bits.
        own: Bits -> squared error of the matrix itself.
    """
    low, high = ((own[bits], measured[bits] ** 2) for bits in ANCHORS)
    power = 1.0
    if min(*low, *high) > 0 and low[0] > high[0]:
        power = max(0.0, math.log(low[1] / high[1]) / math.log(low[0] / high[0]))
    losses: dict[int, float] = {}
    for bits in sorted(own, reverse=True):
        if 4 < bits < 8:
            loss = high[1] * (own[bits] / high[0]) ** power if high[0] else 0.0
        else:
            known = low if bits <= 4 else high
            loss = known[1] * own[bits] / known[0] if known[0] else 0.0
        losses[bits] = max(loss, *losses.values(), 0.0) if losses else loss
    return losses

"""What a point would add to a frontier: the area of (loss, log of bytes) that it alone dominates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LOSSES: Final = 5.0
"""Losses up to so many times the allowed one count."""
_QUANTILES: Final = (-1.28, -0.52, 0.0, 0.52, 1.28)
"""Of the normal distribution at 0.1, 0.3, 0.5, 0.7, 0.9, which stand for it."""


def most_loss(allowed: float | None) -> float | None:
    """The largest loss that counts; None if the goals give no scale for it: no allowed loss, or one of 0."""
    return LOSSES * allowed if allowed else None


def counts(loss: float, allowed: float | None) -> bool:
    """Whether a loss is so small that its file can be chosen, or be a point of the frontier."""
    most = most_loss(allowed)
    return most is None or loss <= most


def hypervolume(values: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that points dominate up to the reference (Zitzler and Thiele, 1998), for two objectives, both minimised."""
    inside = sorted(value for value in values if value[0] < reference[0] and value[1] < reference[1])
    area, lowest = 0.0, reference[1]
    for first, second in inside:
        if second < lowest:
            area += (reference[0] - first) * (lowest - second)
            lowest = second
    return area


def expected_gain(
    front: Sequence[tuple[float, float]], loss: float, error: float, size: float, reference: tuple[float, float]
) -> float:
    """Area that a point is expected to add (Emmerich et al., 2006), its loss being known up to a standard error.

    Args:
        front: (loss, log of bytes) of the files so far.
        loss: That is expected.
        error: Standard error of it.
        size: Log of bytes.
        reference: The largest loss and log of bytes that count.
    """
    before = hypervolume(front, reference)
    gains = [hypervolume([*front, (loss + error * z, size)], reference) - before for z in _QUANTILES]
    return math.fsum(gains) / len(gains)

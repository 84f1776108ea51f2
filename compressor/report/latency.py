"""Times of files, in ms, and ratios of them."""

from __future__ import annotations

from compressor.report.fact import Fact
from compressor.report.scores import Interval


class Latency(Fact):
    """Latency of one file, in ms, with the conditions under which it was taken."""

    p10: float
    p50: float
    p90: float
    runs: int
    warmup: int
    batch: int
    length: int
    threads: int
    runtime: str
    samples: tuple[float, ...] = ()
    """A thinned sample of the timings, for plots."""


SMALLEST_CLAIM = 1.02
"""The smallest ratio of latencies that counts as a change."""


class SpeedUp(Fact):
    """Baseline latency / compressed latency, both timed interleaved in one process."""

    ratio: float
    interval: Interval
    within_noise: bool
    """True if the interval includes 1."""

    @property
    def is_claim(self) -> bool:
        """Whether the whole interval is at least 2 % away from 1: what is closer may be due to this one machine."""
        return self.interval.low >= SMALLEST_CLAIM or self.interval.high <= 1 / SMALLEST_CLAIM

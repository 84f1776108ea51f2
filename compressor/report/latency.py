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


class SpeedUp(Fact):
    """Baseline latency / compressed latency, both timed interleaved in one process."""

    ratio: float
    interval: Interval
    within_noise: bool
    """True if the interval includes 1."""

"""The task's metric on a model or file, and how much of it was lost."""

from __future__ import annotations

from pydantic import Field

from compressor.report.fact import Fact


class Interval(Fact):
    """A two-sided confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


class Score(Fact):
    """The task's metric on one model or file."""

    metric: str
    value: float
    higher_is_better: bool = True
    interval: Interval | None = None
    """Percentile bootstrap over samples; None if the task gives no per-sample scores."""
    samples: int | None = None
    groups: int | None = None
    """Groups of samples that the interval resamples as wholes; None if each sample is one of its own."""
    parts: dict[str, float] = Field(default_factory=dict)
    """Breakdown of the metric, such as accuracy per family."""


class Drop(Fact):
    """How much worse than the original's file a compressed file scores on the same samples; negative = better."""

    value: float
    """Absolute, in the metric's own unit, signed so that positive is worse whichever way the metric points."""
    interval: Interval | None = None
    """Paired bootstrap over samples, tighter than the two scores' own intervals; None without per-sample scores."""

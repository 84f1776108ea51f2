"""The limits of a recipe against what its exported files reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from compressor.report import Limit, Measurement, SpeedUp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.recipe.model import Limits


NOT_JUDGED = ("metric_drop", "speedup", "latency_ms")
"""Limits on what a rehearsal cuts short: training, evaluation and timing."""


def judged(limits: Limits, *, quick: bool) -> Limits:
    """The limits that a run can judge: of a rehearsal those on parameters and bytes alone."""
    return limits.model_copy(update=dict.fromkeys(NOT_JUDGED)) if quick else limits


def check_limits(
    limits: Limits,
    originals: Sequence[Measurement],
    compressed: Sequence[Measurement],
    speedups: Sequence[SpeedUp | None],
) -> tuple[Limit, ...]:
    """Every limit of the recipe against every exported file, each beside its original, step files included."""
    checked: list[Limit] = []
    for original, measurement, speedup in zip(originals, compressed, speedups, strict=True):
        sign = 1.0 if original.score.higher_is_better else -1.0
        reached = {
            "metric_drop": sign * (original.score.value - measurement.score.value),
            "parameters_ratio": original.parameters / measurement.parameters,
            "file_ratio": original.artifact.bytes / measurement.artifact.bytes,
            "file_bytes": float(measurement.artifact.bytes),
            "speedup": speedup.ratio if speedup else math.nan,
            "latency_ms": measurement.latency.p50 if measurement.latency else math.nan,
        }
        if measurement.module != compressed[0].module:  # the files of several modules have one metric together
            reached["metric_drop"] = math.nan
        label = "" if len(compressed) == 1 else f"{measurement.artifact.path}: "
        checked += _against(limits, reached, label)
        ours, theirs = measurement.artifact.step, original.artifact.step
        if measurement.step is None or original.step is None or ours is None or theirs is None:
            continue
        step = measurement.step
        reached = {
            "metric_drop": sign * (original.step.score.value - step.score.value),
            "file_ratio": theirs.bytes / ours.bytes,
            "file_bytes": float(ours.bytes),
            "speedup": step.speedup.ratio if step.speedup else math.nan,
            "latency_ms": step.latency.p50 if step.latency else math.nan,
        }
        checked += _against(limits, reached, f"{ours.path}: ")
    return tuple(checked)


def _against(limits: Limits, reached: Mapping[str, float], label: str) -> Iterator[Limit]:
    """The limits that are set, against what one file reached; NaN if it was not measured."""
    at_most = {"metric_drop", "file_bytes", "latency_ms"}
    for name, value in reached.items():
        limit = getattr(limits, name)
        if limit is None or math.isnan(value):
            continue
        # A drop of 0.01 in accuracies of 370 samples is 0.010000000000000009 in binary.
        margin = 1e-9
        met = value <= limit + margin if name in at_most else value >= limit - margin
        yield Limit(name=label + name, limit=float(limit), reached=value, met=met)

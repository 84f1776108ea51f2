"""The limits of a recipe against what its exported files reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from compressor.report import Limit, Measurement, Score, SpeedUp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.recipe.model import Limits
    from compressor.report import Artifact


_SMALLEST = 1e-9
"""Metric that losses are divided by at least: of an original without errors any loss is a large fraction."""
NOT_JUDGED = ("metric_drop", "metric_drop_relative", "speedup", "latency_ms")
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
        reached = {
            **_drops(original.score, measurement.score),
            "parameters_ratio": original.parameters / measurement.parameters,
            "file_ratio": original.artifact.bytes / measurement.artifact.bytes,
            "file_bytes": float(measurement.artifact.bytes),
            **_on_board(measurement.artifact),
            "speedup": speedup.ratio if speedup else math.nan,
            "latency_ms": measurement.latency.p50 if measurement.latency else math.nan,
        }
        if measurement.module != compressed[0].module:  # the files of several modules have one metric together
            reached |= {"metric_drop": math.nan, "metric_drop_relative": math.nan}
        label = "" if len(compressed) == 1 else f"{measurement.artifact.path}: "
        checked += _against(limits, reached, label)
        ours, theirs = measurement.artifact.step, original.artifact.step
        if measurement.step is None or original.step is None or ours is None or theirs is None:
            continue
        step = measurement.step
        reached = {
            **_drops(original.step.score, step.score),
            "file_ratio": theirs.bytes / ours.bytes,
            "file_bytes": float(ours.bytes),
            "speedup": step.speedup.ratio if step.speedup else math.nan,
            "latency_ms": step.latency.p50 if step.latency else math.nan,
        }
        checked += _against(limits, reached, f"{ours.path}: ")
    return tuple(checked)


def _on_board(artifact: Artifact) -> dict[str, float]:
    """What a program of the file takes on the microcontroller that it was exported for; NaN if for none."""
    emulated = artifact.emulated
    flash, ram = (math.nan, math.nan) if emulated is None else (emulated.flash_bytes, emulated.ram_bytes)
    return {"flash_bytes": float(flash), "ram_bytes": float(ram)}


def _drops(original: Score, score: Score) -> dict[str, float]:
    """What the metric lost, in its own unit and as a fraction of the original's."""
    drop = (original.value - score.value) * (1.0 if original.higher_is_better else -1.0)
    return {"metric_drop": drop, "metric_drop_relative": drop / max(abs(original.value), _SMALLEST)}


def _against(limits: Limits, reached: Mapping[str, float], label: str) -> Iterator[Limit]:
    """The limits that are set, against what one file reached; NaN if it was not measured."""
    at_most = {"metric_drop", "metric_drop_relative", "file_bytes", "flash_bytes", "ram_bytes", "latency_ms"}
    for name, value in reached.items():
        limit = getattr(limits, name)
        if limit is None or math.isnan(value):
            continue
        # A drop of 0.01 in accuracies of 370 samples is 0.010000000000000009 in binary.
        margin = 1e-9
        met = value <= limit + margin if name in at_most else value >= limit - margin
        yield Limit(name=label + name, limit=float(limit), reached=value, met=met)

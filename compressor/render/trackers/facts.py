"""What a tracker is told of a run: its settings, a curve for each number of a training, and the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.report import Report
    from compressor.report.measurements import Measurement


@dataclass(frozen=True)
class Point:
    """One value of a curve."""

    name: str
    """Such as `1-retrain/loss`; steps count from 1."""
    at: int
    """The row, from 1: an epoch, if the step trains once."""
    value: float


@dataclass(frozen=True)
class Tracked:
    """A run, as trackers take it."""

    parameters: dict[str, str]
    """The recipe's settings, `steps.0.ratio` -> `0.5`, and the conditions."""
    points: tuple[Point, ...]
    results: dict[str, float]
    """Such as `model.onnx/bytes`; latencies in milliseconds."""
    text: str
    """The report as Markdown."""


def tracked(report: Report) -> Tracked:
    """What of a report is told."""
    from compressor.render import markdown

    parameters = {
        **dict(_flat("", report.recipe)),
        "task": report.task,
        "device": report.environment.device,
        "recipe_sha256": report.recipe_sha256,
    }
    return Tracked(parameters, tuple(_points(report)), dict(_results(report)), markdown.page(report))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}.{index}", inner)
    else:
        yield prefix, str(value)


def _points(report: Report) -> Iterator[Point]:
    for number, step in enumerate(report.steps, 1):
        for at, row in enumerate(step.history, 1):
            for key, value in row.items():
                if key != "epoch":
                    yield Point(f"{number}-{step.method}/{key}", at, value)
        if step.score is not None:
            yield Point("after each step/metric", number, step.score.value)
        yield Point("after each step/parameters", number, step.parameters)


def _results(report: Report) -> Iterator[tuple[str, float]]:
    for measurement in (report.original, *report.elsewhere, *report.compressed):
        yield from _of_file(measurement)
    for measurement, speedup in zip(report.compressed, report.speedups, strict=True):
        if speedup is not None:
            yield f"{measurement.artifact.path}/times as fast", speedup.ratio
    for limit in report.limits:
        yield f"limits/{limit.name}", limit.reached
    yield "limits met", float(report.limits_met)


def _of_file(measurement: Measurement) -> Iterator[tuple[str, float]]:
    file = measurement.artifact.path
    yield f"{file}/metric", measurement.score.value
    yield f"{file}/bytes", measurement.artifact.bytes
    yield f"{file}/parameters", measurement.parameters
    if measurement.macs is not None:
        yield f"{file}/macs", measurement.macs
    if measurement.latency is not None:
        yield f"{file}/latency p50 ms", measurement.latency.p50

"""Metric, file size, latency and parameters of the first export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import changes
from compressor.render import format as form
from compressor.render.blocks import Card, Cards
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Tone
    from compressor.report import Measurement, Report, SpeedUp


def cards(report: Report) -> Iterator[Card]:
    """One for each number that was measured."""
    if not report.compressed:
        return
    before, after = report.original_of(0), report.compressed[0]
    yield _metric(before, after)
    yield _size(before, after)
    if (speedup := report.speedups[0]) is not None:
        yield _latency(before, after, speedup)
    yield _parameters(before, after)


def _metric(before: Measurement, after: Measurement) -> Card:
    drop, old, new = changes.drop(before, after), form.metric(before.score.value), form.metric(after.score.value)
    name = f"{before.score.metric} on the file"
    return Card(name, old, new, changes.describe_drop(drop), changes.tone_of_drop(drop))


def _size(before: Measurement, after: Measurement) -> Card:
    old, new = before.artifact.bytes, after.artifact.bytes
    change, tone = changes.describe_size(old, new), changes.tone_of_size(old, new)
    return Card("file size", form.size(old), form.size(new), change, tone)


def _latency(before: Measurement, after: Measurement, speedup: SpeedUp) -> Card:
    change, tone = changes.describe_speed(speedup), changes.tone_of_speed(speedup)
    return Card("latency p50", form.median(before.latency), form.median(after.latency), change, tone)


def _parameters(before: Measurement, after: Measurement) -> Card:
    old, new = before.parameters, after.parameters
    tone: Tone = "good" if new < old else "plain"
    return Card("parameters", form.count(old), form.count(new), changes.describe_count(old, new), tone)


def _section(report: Report) -> tuple[Cards, ...]:
    headline = tuple(cards(report))
    return (Cards(headline),) if headline else ()


HEADLINE = Section("", _section, views=frozenset({"html"}))

"""Metric, file size, latency and parameters of the first export, of all its files together."""

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
    files = [(report.original_of(index), report.compressed[index], report.speedups[index]) for index in first(report)]
    yield _metric(*files[0][:2])
    yield _size(sum(before.artifact.bytes for before, *_ in files), sum(after.artifact.bytes for _, after, _ in files))
    for before, after, speedup in files:
        if speedup is not None:
            yield _latency(before, after, speedup)
    yield _parameters(sum(before.parameters for before, *_ in files), sum(after.parameters for _, after, _ in files))


def first(report: Report) -> list[int]:
    """Indexes of the files of the first export: one, or one for each module."""
    modules = [measured.module for measured in report.compressed]
    return list(range(next((index for index in range(1, len(modules)) if modules[index] == modules[0]), len(modules))))


def _metric(before: Measurement, after: Measurement) -> Card:
    drop, old, new = changes.drop(before, after), form.metric(before.score.value), form.metric(after.score.value)
    name = f"{before.score.metric} on the file"
    return Card(name, old, new, changes.describe_drop(drop), changes.tone_of_drop(drop))


def _size(old: int, new: int) -> Card:
    change, tone = changes.describe_size(old, new), changes.tone_of_size(old, new)
    return Card("file size", form.size(old), form.size(new), change, tone)


def _latency(before: Measurement, after: Measurement, speedup: SpeedUp) -> Card:
    change, tone = changes.describe_speed(speedup), changes.tone_of_speed(speedup)
    name = f"latency p50 of {after.module}" if after.module else "latency p50"
    return Card(name, form.median(before.latency), form.median(after.latency), change, tone)


def _parameters(old: int, new: int) -> Card:
    tone: Tone = "good" if new < old else "plain"
    return Card("parameters", form.count(old), form.count(new), changes.describe_count(old, new), tone)


def _section(report: Report) -> tuple[Cards, ...]:
    headline = tuple(cards(report))
    return (Cards(headline),) if headline else ()


HEADLINE: Section[Report] = Section("", _section, views=frozenset({"html"}))

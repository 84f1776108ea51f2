"""Everything measured on the exported files: one row a quantity, the original, then each export and its change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import changes, labels
from compressor.render import format as form
from compressor.render.blocks import Details, Table, Text
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Measurement, Report, SpeedUp

_CONDITIONS = 2
"""Rows at the end that are left out if all files share them: a footnote says it."""


def table(report: Report) -> Table:
    """Every original that something is compared with, followed by what is compared with it."""
    header, columns = [""], []
    for name, original in labels.originals(report):
        header.append(name)
        columns.append(_measured(original))
        for index, compressed in enumerate(report.compressed):
            if report.original_of(index) is original:
                header += [labels.compressed(report, index), "change"]
                columns += [_measured(compressed), _changes(original, compressed, report.speedups[index])]
    rows = tuple(zip(_quantities(report), *columns, strict=True))
    shared = len({_conditions(measurement) for measurement in _files(report)}) == 1
    return Table(tuple(header), rows[:-_CONDITIONS] if shared else rows)


def footnotes(report: Report) -> Iterator[str]:
    """What the numbers are and under what conditions they were taken."""
    yield "All measured on the exported files, unless the row says PyTorch."
    yield _about_the_metric(report)
    yield _about_latency(report)
    ratios = [speedup for speedup in report.speedups if speedup is not None]
    if ratios:
        which = ", the original left of it in the table" if report.elsewhere else ""
        confidence = form.confidence(ratios[0].interval)
        yield f"Ratio: median over rounds of original / compressed{which}, with its {confidence}."
    if report.original.peak_memory_bytes is not None:
        yield (
            "Peak memory growth: of a fresh process that loads and runs the file; it includes the runtime overhead of "
            "some MiB."
        )


def _about_the_metric(report: Report) -> str:
    score = report.original.score
    if score.interval is None and score.samples is None:
        return "The task gives no per-sample scores, so the metric has no interval."
    if score.interval is None:
        return f"Metric over {score.samples} samples that all score the same, so resampling gives no interval."
    return f"Metric with its {form.confidence(score.interval)}: percentile bootstrap over {labels.resampled(score)}."


def _about_latency(report: Report) -> str:
    first = report.original.latency
    if first is None:
        return "Latency was not measured."
    latencies = [file.latency for file in _files(report) if file.latency]
    runtimes = dict.fromkeys(latency.runtime for latency in latencies)
    lengths = {latency.length for latency in latencies}
    length = f"length {first.length}, " if len(lengths) == 1 and _has_lengths(report) else ""
    processes = " in one process" if len(runtimes) == 1 else "; each further runtime has a process of its own"
    return (
        f"Latency: batch {first.batch}, {length}{form.plural(first.threads, 'thread')}, {'; '.join(runtimes)}; "
        f"{first.runs} timed runs a file, {first.warmup} warm-up runs before each burst; the files are interleaved in "
        f"random order{processes}. Machine: {report.environment.cpu}."
    )


def _has_lengths(report: Report) -> bool:
    """Whether the model takes sequences at all; taken for granted in reports of older versions."""
    return report.axes is None or any("time" in tensor.axes.values() for tensor in report.axes.tensors)


def _quantities(report: Report) -> tuple[str, ...]:
    score = report.original.score
    return (
        f"{score.metric} on the file",
        f"its {form.confidence(score.interval)}" if score.interval else "its interval",
        f"{score.metric} in PyTorch",
        "parameters",
        "non-zero parameters",
        "MACs for one sample",
        "file size",
        "file size, gzip -9",
        "peak memory growth",
        "latency p50",
        "latency p10 to p90",
        "positions in a run",
        "run in",
    )


def _measured(file: Measurement) -> tuple[str, ...]:
    latency = file.latency
    interval = file.score.interval
    return (
        form.metric(file.score.value),
        form.between(interval, form.metric) if interval else "none",
        form.metric(file.torch_score.value),
        form.count(file.parameters),
        f"{form.count(file.nonzeros)} ({form.percent(file.sparsity)} zero)",
        form.large_count(file.macs),
        form.size(file.artifact.bytes),
        form.size(file.artifact.gzip_bytes),
        form.size(file.peak_memory_bytes),
        form.median(latency),
        form.spread(latency),
        str(latency.length) if latency else "",
        latency.runtime if latency else "",
    )


def _changes(before: Measurement, after: Measurement, speedup: SpeedUp | None) -> tuple[str, ...]:
    drop = changes.drop(before, after)
    return (
        changes.describe_drop(drop),
        f"drop: {form.between(drop.interval, form.metric)}" if drop.interval else "",
        "",
        changes.describe_count(before.parameters, after.parameters),
        changes.describe_count(before.nonzeros, after.nonzeros),
        changes.describe_count(before.macs, after.macs),
        changes.describe_size(before.artifact.bytes, after.artifact.bytes),
        changes.describe_size(before.artifact.gzip_bytes, after.artifact.gzip_bytes),
        changes.describe_size(before.peak_memory_bytes, after.peak_memory_bytes),
        changes.describe_speed(speedup),
        changes.describe_ratio(speedup),
        "",
        "",
    )


def _files(report: Report) -> tuple[Measurement, ...]:
    return (report.original, *report.elsewhere, *report.compressed)


def _conditions(measurement: Measurement) -> tuple[int, str] | None:
    latency = measurement.latency
    return None if latency is None else (latency.length, latency.runtime)


def _blocks(report: Report) -> tuple[Block, ...]:
    notes = tuple(Text(note, muted=True) for note in footnotes(report))
    return table(report), Details("How this was measured", notes)


COMPARISON: Section[Report] = Section("Original and compressed", _blocks)

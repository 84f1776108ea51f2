"""Everything measured on the step files: as in the comparison, with changes if the original has one too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import changes, labels
from compressor.render import format as form
from compressor.render.blocks import Table, Text
from compressor.render.section import Section
from compressor.report import Drop

if TYPE_CHECKING:
    from compressor.render.blocks import Block
    from compressor.report import Artifact, Measurement, Report, StepMeasurement, StreamInfo


def table(report: Report) -> Table:
    """One row a quantity; no column but the names if there is no step file."""
    header, columns = [""], []
    if (measured := _measured(report.original)) is not None:
        header.append("original")
        columns.append(measured)
    for index, measurement in enumerate(report.compressed):
        if (measured := _measured(measurement)) is None:
            continue
        header.append(labels.compressed(report, index))
        columns.append(measured)
        if (changed := _changes(report.original_of(index), measurement)) is not None:
            header.append("change")
            columns.append(changed)
    quantities = (
        "step file",
        "positions in a step",
        f"{report.original.score.metric}, run step by step",
        "file size",
        "states of one stream",
        "MACs of one step",
        "peak memory growth",
        "latency of a step, p50",
        "latency p10 to p90",
    )
    return Table(tuple(header), tuple(zip(quantities, *columns, strict=True)))


def footnote(report: Report) -> str:
    """Under what conditions the step files were timed; empty if they were not."""
    steps = [file.step for file in _files(report) if file.step is not None]
    if not steps or steps[0].latency is None:
        return ""
    past = f"States that grow hold {steps[0].past} positions. " if any(map(_grows, _files(report))) else ""
    return (
        f"{past}A step is timed as a whole file is, interleaved with the other step files: batch 1, "
        f"{steps[0].latency.runs} timed runs a file. Limits hold for step files too."
    )


def size_of_states(stream: StreamInfo) -> str:
    """What one stream keeps: 1,200 B, or what it grows by."""
    start, each = stream.state_bytes(0), stream.state_bytes(1) - stream.state_bytes(0)
    if not each:
        return f"{form.count(start)} B"
    return f"{form.count(start)} B and {form.count(each)} B a position" if start else f"{form.count(each)} B a position"


def _files(report: Report) -> tuple[Measurement, ...]:
    return (report.original, *report.compressed)


def _grows(file: Measurement) -> bool:
    step = file.artifact.step
    return step is not None and step.stream is not None and step.stream.grows


def _step_file(file: Measurement) -> tuple[Artifact, StreamInfo, StepMeasurement] | None:
    artifact, step = file.artifact.step, file.step
    if artifact is None or artifact.stream is None or step is None:
        return None
    return artifact, artifact.stream, step


def _measured(file: Measurement) -> tuple[str, ...] | None:
    if (step_file := _step_file(file)) is None:
        return None
    artifact, stream, step = step_file
    return (
        artifact.path,
        str(stream.chunk),
        form.metric(step.score.value),
        form.size(artifact.bytes),
        size_of_states(stream),
        form.large_count(step.macs),
        form.size(step.peak_memory_bytes),
        form.median(step.latency),
        form.spread(step.latency),
    )


def _changes(before: Measurement, after: Measurement) -> tuple[str, ...] | None:
    old, new = _step_file(before), _step_file(after)
    if old is None or new is None:
        return None
    (old_file, old_stream, old_step), (new_file, new_stream, new_step) = old, new
    states = [stream.state_bytes(new_step.past) for stream in (old_stream, new_stream)]
    return (
        "",
        "",
        changes.describe_drop(new_step.drop or Drop(value=0.0)),
        changes.describe_size(old_file.bytes, new_file.bytes),
        changes.describe_size(*states),
        changes.describe_count(old_step.macs, new_step.macs),
        changes.describe_size(old_step.peak_memory_bytes, new_step.peak_memory_bytes),
        changes.describe_speed(new_step.speedup),
        changes.describe_ratio(new_step.speedup),
    )


def _blocks(report: Report) -> tuple[Block, ...]:
    measured = table(report)
    if len(measured.header) == 1:
        return ()
    note = footnote(report)
    return (measured, Text(note, muted=True)) if note else (measured,)


STEP_FILES: Section[Report] = Section("Step by step", _blocks)

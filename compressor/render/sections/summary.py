"""The result in a few sentences, bad news included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import changes, labels
from compressor.render import format as form
from compressor.render.blocks import Group, Statement, Statements
from compressor.render.section import Section
from compressor.render.sections import controls, limits, probes, rounding
from compressor.render.sections.exported_files import has_lengths
from compressor.render.sections.step_files import size_of_states
from compressor.report.latency import SMALLEST_CLAIM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Artifact, Emulated, Measurement, Quantization, Report, Score, SpeedUp

_ONE_MODEL: Final = 1e-3
"""Relative error up to which two rounded files count as one model."""
_NOTICEABLE_ZEROS: Final = 0.005
_NOTICEABLE_RATIO: Final = 1.05
_CROWD: Final = 2.0
"""Processes a core, above which what takes longer is timed worse than what is short."""
_FEW: Final = 50
"""Samples, or groups of them, below which percentile intervals are too narrow and one sample is much of the metric."""


def statements(report: Report) -> Iterator[Statement]:
    """Whether the run counts, each file, then what steps, exports and limits came to."""
    yield from _before(report)
    for _, about in files(report):
        yield from about
    yield from _after(report)


def files(report: Report) -> Iterator[tuple[str, list[Statement]]]:
    """The name of each compressed file and what is to be said of it."""
    for index, measurement in enumerate(report.compressed):
        before = report.original_of(index)
        said = list(_about(before, measurement, report.speedups[index]))
        if measurement.module == report.compressed[0].module:  # the files of several modules have one metric together
            said.insert(0, _metric(before, measurement))
        yield labels.compressed(report, index), said


def _before(report: Report) -> Iterator[Statement]:
    if report.quick:
        yield Statement("bad", "A rehearsal (--quick): training and measuring were cut short; no number here counts.")
    if report.remark:
        yield Statement("plain", report.remark)
    yield from _crowded(report)
    if not report.quick:  # a rehearsal evaluates on a slice, and says so
        yield from _few(report.original.score)


def _crowded(report: Report) -> Iterator[Statement]:
    """That speeds mean little, if other programs kept the machine busy."""
    machine = report.environment
    if machine.load is None or machine.load <= _CROWD * machine.cores or not any(report.speedups):
        return
    yield Statement(
        "bad",
        f"The machine was busy ({machine.load:.0f} processes for {form.plural(machine.cores, 'core')}). A run that "
        "takes longer than a process gets at a time is held up, a shorter one is not: speed-ups may be many times too "
        "large. Time the files again on an idle machine: `compressor bench`.",
    )


def _after(report: Report) -> Iterator[Statement]:
    for step in report.steps:
        if not step.changes:
            yield Statement("bad", f"{step.method} changed nothing: {'; '.join(step.notes)}.")
        yield from probes.of_step(step)
    yield from controls.statements(report)
    for failed in report.refused:
        yield Statement("bad", f"Export failed: {failed.name}: {failed.reason}")
    yield from limits.statements(report)


def _about(before: Measurement, after: Measurement, speedup: SpeedUp | None) -> Iterator[Statement]:
    yield _size(before.artifact.bytes, after.artifact.bytes)
    if speedup is not None:
        yield Statement(changes.tone_of_speed(speedup), f"{_speed(speedup)}{_remedy(after.artifact, speedup)}")
    yield _parity(after.artifact)
    files = [file for file in (after.artifact, after.artifact.step) if file is not None]
    yield from (said for file in files if (said := rounding.statement(file)) is not None)
    yield from _on_board(before.artifact.emulated, after.artifact.emulated)
    yield from _step_file(before, after)
    if after.sparsity >= before.sparsity + _NOTICEABLE_ZEROS:
        yield _zeros(before, after)


def _metric(before: Measurement, after: Measurement) -> Statement:
    drop = changes.drop(before, after)
    values = f"{form.metric(before.score.value)} → {form.metric(after.score.value)}"
    files = "files together" if after.module else "file"
    text = f"{before.score.metric} on the exported {files}: {values}, {changes.describe_drop(drop)}"
    if drop.value == 0 or drop.interval is None:
        return Statement(changes.tone_of_drop(drop), f"{text}.")
    interval = f"{form.confidence(drop.interval)} of the drop: {form.between(drop.interval, form.metric)}"
    chance = ""
    if drop.interval.low <= 0 <= drop.interval.high:
        chance = f"; the interval includes 0: with {labels.resampled(after.score)} this may be chance"
    return Statement(changes.tone_of_drop(drop), f"{text} ({interval}{chance}).")


def _few(score: Score) -> Iterator[Statement]:
    """A caution if there are too few samples to tell small losses."""
    count = score.groups or score.samples
    if count is None or count >= _FEW:
        return
    kind = "group" if score.groups else "sample"
    yield Statement(
        "plain",
        f"Only {form.plural(count, kind)}: each is {form.percent(1 / count)} of the metric, so small losses do not "
        f"show, and intervals of so few are too narrow. Evaluate on {_FEW} {kind}s or more.",
    )


def _size(before: int, after: int) -> Statement:
    changed = changes.describe_size(before, after)
    text = "The file is as large as before" if changed == "same" else f"The file is {changed}"
    return Statement(changes.tone_of_size(before, after), f"{text}: {form.size(before)} → {form.size(after)}.")


def _speed(speedup: SpeedUp) -> str:
    interval = f"{form.confidence(speedup.interval)} {form.between(speedup.interval, form.ratio)}"
    if speedup.within_noise:
        ratio = form.ratio(speedup.ratio)
        return f"No measurable change in speed: {ratio}, within noise ({interval}, which includes 1)."
    if not speedup.is_claim:
        ratio = form.ratio(speedup.ratio)
        return (
            f"About as fast as before: {ratio} ({interval}); less than {SMALLEST_CLAIM:g}x may be this machine's doing."
        )
    if speedup.ratio > 1:
        return f"The file runs {form.ratio(speedup.ratio)} as fast ({interval})."
    return f"The file is slower: {form.ratio(speedup.ratio)} as fast ({interval})."


def _remedy(artifact: Artifact, speedup: SpeedUp) -> str:
    """What to do about integers that make a file slower; empty if they do not."""
    integers = artifact.quantization is not None and artifact.quantization.target == "cpu"
    if not integers or not speedup.is_claim or speedup.ratio > 1:
        return ""
    return (
        " Integers do not pay for this model: `rounding: {quantize_for: anywhere}` is as small and computes in float, "
        "`precision: float16` is half as large as float32."
    )


def _parity(artifact: Artifact) -> Statement:
    if not artifact.parity.passed:
        return Statement("bad", "The file disagrees with PyTorch; see the table of agreement.")
    largest = form.error(artifact.parity.largest_error)
    noise = artifact.parity.noise
    own = "" if noise is None else f"; {noise.precision} itself is off by up to {form.error(noise.largest)}"
    shapes = len({(point.batch, point.length, *point.sizes.values()) for point in artifact.parity.points})
    further = any(point.sizes for point in artifact.parity.points)
    axes = "batch sizes and lengths" if has_lengths(artifact) else "sizes" if further else "batch sizes"
    sizes = f"{shapes} {axes}" if shapes > 1 else "the one batch size and length that it takes"
    runtime = "" if artifact.format == "onnx" or not artifact.runtime else f" in {artifact.runtime.partition(',')[0]}"
    if artifact.parity.rtol == 0:  # of a rounded file: a bound in parts of the largest output, and no agreement
        text = f"The rounded file is at most {largest} from PyTorch{runtime} at {sizes}"
        return Statement("plain", f"{text} (allowed: {artifact.parity.atol:.2g}).")
    agrees = f"agrees with PyTorch{runtime} at {sizes} (largest absolute error {largest}{own})"
    if artifact.quantization is None:
        return Statement("good", f"The file {agrees}.")
    furthest = form.error(max(point.error for point in artifact.quantization.deviation))
    text = f"Before rounding, the file {agrees}; the rounded file is at most {furthest} (relative, norm) away from it."
    return Statement("good", text)


def _on_board(before: Emulated | None, after: Emulated | None) -> Iterator[Statement]:
    if after is None:
        return
    was = before.model_dump() if before is not None else {}

    def taken(name: str, what: str) -> str:
        beside = f" ({form.count(was[name])} before)" if was else ""
        return f"{form.count(getattr(after, name))} {what}{beside}"

    flash, ram = taken("flash_bytes", "B of flash"), taken("ram_bytes", "B of RAM")
    instructions = taken("instructions", "instructions a call")
    yield Statement("plain", f"On an emulated {after.cpu} the whole program takes {flash}, {ram} and {instructions}.")


def _step_file(before: Measurement, after: Measurement) -> Iterator[Statement]:
    artifact, step = after.artifact.step, after.step
    if artifact is None or step is None or artifact.stream is None:
        return
    latency = f" in {form.median(step.latency)}" if step.latency else ""
    yield Statement(
        "good" if artifact.quantization is None else "plain",
        f"{artifact.path} takes {form.plural(artifact.stream.chunk, 'position')} at a time{latency} and keeps "
        f"{size_of_states(artifact.stream)} for a stream; {_agreement_of_steps(artifact)}.",
    )
    if before.step is not None and step.score.value != after.score.value:
        yield Statement(
            "plain",
            f"{before.score.metric} step by step is {form.metric(step.score.value)}, on the whole-sequence file "
            f"{form.metric(after.score.value)}: {_why_scores_differ(artifact.quantization)}.",
        )


def _agreement_of_steps(artifact: Artifact) -> str:
    largest, rounded = form.error(artifact.parity.largest_error), artifact.quantization
    length = max(point.length for point in artifact.parity.points)
    agree = f"agree with PyTorch over up to {length} positions (largest absolute error {largest})"
    if rounded is None:
        return f"its steps {agree}"
    furthest = form.error(max(point.error for point in rounded.deviation))
    text = f"before rounding its steps {agree}, rounded they are at most {furthest} (relative, norm) away from PyTorch"
    if not rounded.beside_whole:
        return text
    apart = form.error(max(point.error for point in rounded.beside_whole))
    return f"{text} and {apart} from the whole-sequence file"


def _why_scores_differ(rounded: Quantization | None) -> str:
    evaluate = "the task's `evaluate` gives other sequences to the two, or counts padded positions"
    if rounded is not None and rounded.beside_whole and max(point.error for point in rounded.beside_whole) > _ONE_MODEL:
        return f"the two files round differently, or {evaluate}"
    return evaluate


def _zeros(before: Measurement, after: Measurement) -> Statement:
    text = (
        f"{form.percent(after.sparsity)} of the parameters left are zero. Zeros alone do not make the file faster or "
        "smaller: it stores and multiplies them like any other number."
    )
    packed = after.artifact.bytes / after.artifact.gzip_bytes
    if packed > _NOTICEABLE_RATIO * before.artifact.bytes / before.artifact.gzip_bytes:
        text += f" They do pack well: gzip makes this file {form.ratio(packed)} smaller."
    return Statement("plain", text)


def _section(report: Report) -> Iterator[Block]:
    """One list; with several files a group for each of them."""
    several = len(report.compressed) > 1
    if not several:
        if said := tuple(statements(report)):
            yield Statements(said)
        return
    if said := tuple(_before(report)):
        yield Statements(said)
    for name, about in files(report):
        yield Group(name, (Statements(tuple(about)),))
    if said := tuple(_after(report)):
        yield Statements(said)


SUMMARY: Section[Report] = Section("Result", lambda report: tuple(_section(report)), last_on_terminal=True, leads=True)

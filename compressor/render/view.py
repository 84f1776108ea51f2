"""What every view shows, as plain text: one place for the words, so that table, Markdown and HTML agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.render import format as form
from compressor.render import probe
from compressor.render.blocks import Statement, Table, Tone
from compressor.report import Drop

if TYPE_CHECKING:
    from compressor.report import (
        Artifact,
        Limit,
        Measurement,
        Report,
        Score,
        SpeedUp,
        StepMeasurement,
        StepReport,
        StreamInfo,
    )

_NOTICEABLE_ZEROS = 0.005
_NOTICEABLE_RATIO = 1.05
_FORMS = {
    "float": "float32",
    "half": "float16 in the file",
    "weights": "8 bits in the file",
    "integer": "8-bit integers",
    "int4": "4 bits",
    "static": "calibrated integers",
}
"""How a matrix is stored; float in front of its operator unless it says integers or 4 bits."""


@dataclass(frozen=True)
class Card:
    """One headline number, before and after."""

    title: str
    before: str
    after: str
    change: str
    tone: Tone


def label(report: Report, index: int) -> str:
    """What the compressed file `index` is called in this report."""
    if len(report.compressed) == 1:
        return "compressed"
    return f"compressed {index + 1} ({_format(report.compressed[index].artifact)})"


def originals(report: Report) -> list[tuple[str, Measurement]]:
    """The original in every format in which something is compared with it, and what it is called."""
    every = (report.original, *report.elsewhere)
    used = [one for number, one in enumerate(every) if number == 0 or number in report.baselines]
    if len(used) == 1:
        return [("original", report.original)]
    return [(f"original ({_format(one.artifact)})", one) for one in used]


def _format(artifact: Artifact) -> str:
    return artifact.format if artifact.stream is None else f"{artifact.format}, step"


def drop(before: Measurement, measurement: Measurement) -> Drop:
    """The recorded drop, or the plain difference of the two scores."""
    if measurement.drop is not None:
        return measurement.drop
    first, after = before.score, measurement.score
    return Drop(value=(first.value - after.value) * (1 if first.higher_is_better else -1) + 0.0)


def statements(report: Report) -> list[Statement]:
    """The result in a few sentences, bad news included."""
    found = []
    if report.quick:
        found.append(
            Statement("bad", "A rehearsal (--quick): training and measuring were cut short, so no number here counts.")
        )
    for index, measurement in enumerate(report.compressed):
        name = "" if len(report.compressed) == 1 else f"{label(report, index)}: "
        for statement in _about(report.original_of(index), measurement, report.speedups[index]):
            found.append(Statement(statement.tone, name + statement.text))
    for step in report.steps:
        found += probe.of_step(step)
    found += [said for step in report.steps if (said := _beside_statement(report, step)) is not None]
    found += [Statement("bad", f"Refused: {skip.name}: {skip.reason}") for skip in report.refused]
    missed = [limit for limit in report.limits if not limit.met]
    if missed:
        found.append(Statement("bad", "Limits missed: " + "; ".join(_missed(limit) for limit in missed) + "."))
    elif report.limits:
        found.append(Statement("good", f"Limits met: all {len(report.limits)}."))
    return found


def cards(report: Report) -> list[Card]:
    """Metric, file, latency and parameters of the first export."""
    if not report.compressed:
        return []
    before, after, faster = report.original_of(0), report.compressed[0], report.speedups[0]
    lost = drop(before, after)
    found = [
        Card(
            f"{before.score.metric} on the file",
            form.metric(before.score.value),
            form.metric(after.score.value),
            _drop_in_short(lost),
            _drop_tone(lost),
        ),
        _size_card("file size", before.artifact.bytes, after.artifact.bytes),
    ]
    if before.latency and after.latency and faster:
        found.append(
            Card(
                "latency p50",
                form.milliseconds(before.latency.p50),
                form.milliseconds(after.latency.p50),
                _speed_in_short(faster),
                _speed_tone(faster),
            )
        )
    fewer = form.change(before.parameters, after.parameters, less="fewer", more="more")
    tone: Tone = "good" if after.parameters < before.parameters else "plain"
    found.append(Card("parameters", form.count(before.parameters), form.count(after.parameters), fewer, tone))
    return found


def comparison(report: Report) -> Table:
    """Everything measured: one row a quantity, the original, then each export and its change."""
    header, columns = [""], []
    for name, measurement in originals(report):
        header.append(name)
        columns.append(_measured(measurement))
        for index, compressed in enumerate(report.compressed):
            if report.original_of(index) is measurement:
                header += [label(report, index), "change"]
                columns += [_measured(compressed), _changes(measurement, compressed, report.speedups[index])]
    known = report.original.score.interval
    names = (
        f"{report.original.score.metric} on the file",
        f"its {form.confidence(known)}" if known else "its interval",
        f"{report.original.score.metric} in PyTorch",
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
    rows = tuple(zip(names, *columns, strict=True))
    files = (report.original, *report.elsewhere, *report.compressed)
    same = len({_conditions(measurement) for measurement in files}) == 1
    return Table(tuple(header), rows[:-2] if same else rows)  # where all are the same, a footnote says it


def _conditions(measurement: Measurement) -> tuple[int, str] | None:
    taken = measurement.latency
    return None if taken is None else (taken.length, taken.runtime)


def step_by_step(report: Report) -> Table | None:
    """Everything measured on the step files: as `comparison`, changes where the original has one; none without any."""
    header, columns = [""], []
    original = report.original
    if original.step is not None and original.artifact.step is not None:
        header.append("original")
        columns.append(_measured_step(original.artifact.step, original.step))
    for index, measurement in enumerate(report.compressed):
        if measurement.step is None or measurement.artifact.step is None:
            continue
        header.append(label(report, index))
        columns.append(_measured_step(measurement.artifact.step, measurement.step))
        if report.original_of(index).step is not None:
            header.append("change")
            columns.append(_step_changes(report.original_of(index), measurement))
    if not columns:
        return None
    names = (
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
    return Table(tuple(header), tuple(zip(names, *columns, strict=True)))


def step_footnote(report: Report) -> str:
    """Under what conditions the step files were timed."""
    steps = [file.step for file in (report.original, *report.compressed) if file.step is not None]
    if not steps or steps[0].latency is None:
        return ""
    step, latency = steps[0], steps[0].latency
    past = f"Where states grow, they hold {step.past} positions. " if any(_growing(report)) else ""
    return (
        f"{past}A step is timed as a whole file is, interleaved with the other step files: batch 1, "
        f"{latency.runs} timed runs a file. Limits hold for step files too."
    )


def _growing(report: Report) -> list[bool]:
    steps = [file.artifact.step for file in (report.original, *report.compressed)]
    return [step is not None and step.stream is not None and step.stream.grows for step in steps]


def _measured_step(artifact: Artifact, step: StepMeasurement) -> tuple[str, ...]:
    assert artifact.stream is not None
    latency = step.latency
    return (
        artifact.path,
        str(artifact.stream.chunk),
        form.metric(step.score.value),
        form.size(artifact.bytes),
        state_size(artifact.stream),
        form.large_count(step.macs),
        form.size(step.peak_memory_bytes),
        form.milliseconds(latency.p50) if latency else "not measured",
        f"{form.significant(latency.p10)} to {form.milliseconds(latency.p90)}" if latency else "not measured",
    )


def _step_changes(before: Measurement, after: Measurement) -> tuple[str, ...]:
    old, new = before.artifact.step, after.artifact.step
    assert old is not None
    assert new is not None
    assert before.step is not None
    assert after.step is not None
    assert old.stream is not None
    assert new.stream is not None
    faster = after.step.speedup
    states = [stream.state_bytes(after.step.past) for stream in (old.stream, new.stream)]
    return (
        "",
        "",
        _drop_in_short(after.step.drop or Drop(value=0.0)),
        form.change(old.bytes, new.bytes, less="smaller", more="larger"),
        form.change(*states, less="smaller", more="larger"),
        form.change(before.step.macs, after.step.macs, less="fewer", more="more"),
        form.change(before.step.peak_memory_bytes, after.step.peak_memory_bytes, less="less", more="more"),
        _speed_in_short(faster) if faster else "",
        f"ratio: {form.between(faster.interval, form.ratio)}" if faster else "",
    )


def state_size(stream: StreamInfo) -> str:
    """What one stream keeps: 1,200 B, or what it grows by."""
    start, each = stream.state_bytes(0), stream.state_bytes(1) - stream.state_bytes(0)
    if not each:
        return f"{form.count(start)} B"
    return f"{form.count(start)} B and {form.count(each)} B a position" if start else f"{form.count(each)} B a position"


def states(artifact: Artifact) -> Table | None:
    """The states of a step file; none where it is no step file."""
    if artifact.stream is None:
        return None
    rows = tuple(
        (
            state.name,
            state.next_name,
            state.dtype,
            form.shape(state.shape),
            f"{state.initial:g}" if isinstance(state.initial, float) else f"{len(state.initial)} numbers of its own",
        )
        for state in artifact.stream.states
    )
    return Table(("state", "its next value", "type", "shape", "at the start"), rows)


def chained(artifact: Artifact) -> str:
    """Agreement of a step file with the whole-sequence file, in a sentence."""
    if artifact.chained is None:
        return ""
    points = artifact.chained.points
    largest = form.error(max(point.max_absolute for point in points))
    lengths = ", ".join(str(length) for length in sorted({point.length for point in points}))
    return f"Chained steps agree with the whole-sequence file at lengths {lengths} (largest absolute error {largest})."


def parts(report: Report) -> Table | None:
    """The metric's breakdown on each file; none where the task gives none."""
    before = originals(report)
    files = (*(measurement for _, measurement in before), *report.compressed)
    names = list(dict.fromkeys(name for file in files for name in file.score.parts))
    if not names:
        return None
    rows = tuple(
        (name, *(form.metric(file.score.parts[name]) if name in file.score.parts else "" for file in files))
        for name in names
    )
    header = ("part", *(name for name, _ in before), *(label(report, index) for index in range(len(report.compressed))))
    return Table(header, rows)


def footnotes(report: Report) -> list[str]:
    """What the numbers of the comparison are and under what conditions they were taken."""
    found = [_score_note(report)]
    taken, ratios = report.original.latency, [faster for faster in report.speedups if faster is not None]
    if taken is None:
        found.append("Latency was not measured.")
    else:
        threads = "1 thread" if taken.threads == 1 else f"{taken.threads} threads"
        files = [file.latency for file in (report.original, *report.elsewhere, *report.compressed) if file.latency]
        lengths = {file.length for file in files}
        runtimes = dict.fromkeys(file.runtime for file in files)
        length = f"length {taken.length}, " if len(lengths) == 1 else ""
        several = " in one process" if len(runtimes) == 1 else "; each runtime has a process of its own but the first"
        found.append(
            f"Latency: batch {taken.batch}, {length}{threads}, {'; '.join(runtimes)}; {taken.runs} timed runs "
            f"a file, {taken.warmup} warm-up runs before each burst; the files take turns in random order{several}. "
            f"Machine: {report.environment.cpu}."
        )
    if ratios:
        found.append(
            f"Ratio: median over rounds of original / compressed{_which(report)}, with its "
            f"{form.confidence(ratios[0].interval)}."
        )
    if report.original.peak_memory_bytes is not None:
        found.append(
            "Peak memory growth: of a fresh process that loads and runs the file; it holds some MiB that the runtime "
            "takes for itself."
        )
    return found


def _which(report: Report) -> str:
    return ", the original left of it in the table" if report.elsewhere else ""


def limits(report: Report) -> Table | None:
    """Each limit and what was reached; none where the recipe sets none."""
    if not report.limits:
        return None
    rows = tuple(
        (limit.name, _bound(limit), _quantity(limit.name, limit.reached), "met" if limit.met else "MISSED")
        for limit in report.limits
    )
    return Table(("limit", "wanted", "reached", ""), rows)


def options(step: StepReport) -> str:
    """A step's options on one line."""
    return ", ".join(f"{name}: {_plain(value)}" for name, value in step.options.items() if name != "method")


def outcome(step: StepReport) -> str:
    """What is left after a step, on one line."""
    said = [f"{form.count(step.parameters)} parameters", f"{form.count(step.nonzeros)} of them not zero"]
    if step.score is not None:
        said.append(f"{step.score.metric} {score(step.score)}")
    return ", ".join([*said, f"took {form.seconds(step.seconds)}"])


def changes(step: StepReport) -> Table | None:
    """What a step touched; none where nothing."""
    if not step.changes:
        return None
    rows = tuple(
        (
            change.name,
            change.action,
            _arrow(form.shape(change.shape_before), form.shape(change.shape_after)) if change.shape_before else "",
            _arrow(form.count(change.parameters_before), form.count(change.parameters_after)),
            _arrow(form.count(change.nonzeros_before), form.count(change.nonzeros_after)),
            change.note,
        )
        for change in step.changes
    )
    return _without_empty(Table(("touched", "how", "shape", "parameters", "non-zeros", "note"), rows))


def skipped(step: StepReport) -> Table | None:
    """What a step left alone, and why; none where nothing."""
    rows = tuple((skip.name, skip.reason) for skip in step.skipped)
    return Table(("skipped", "why"), rows) if rows else None


def history(step: StepReport) -> Table | None:
    """One row an epoch or round; none where the step keeps no history."""
    if not step.history:
        return None
    keys = tuple(dict.fromkeys(key for row in step.history for key in row))
    rows = tuple(tuple(_plain(row[key]) if key in row else "" for key in keys) for row in step.history)
    return Table(keys, rows)


def facts(step: StepReport) -> Table | None:
    """Numbers about what a step made; none where there are none."""
    rows = tuple((name, _plain(value)) for name, value in step.facts.items())
    return Table(("fact", "value"), rows) if rows else None


def beside(report: Report, step: StepReport) -> Table | None:
    """A step and its controls, right after it and after the last step; none where it has no controls."""
    if not step.beside or step.score is None:
        return None
    last = report.steps[-1].score or step.score
    metric = f"{step.score.metric} in PyTorch"
    rows = [(step.method, score(step.score), score(last), form.count(step.parameters), form.count(step.nonzeros), "")]
    for other in step.beside:
        scores = [score(value) if value else "" for value in (other.score, other.final)]
        counts = [form.count(number) if other.score else "" for number in (other.parameters, other.nonzeros)]
        rows.append((other.name, scores[0], scores[1], counts[0], counts[1], other.note))
    header = ("by", f"{metric} after step {step.index + 1}", "after the last step", "parameters", "non-zeros", "note")
    return _without_empty(Table(header, tuple(rows)))


def _beside_statement(report: Report, step: StepReport) -> Statement | None:
    """Did the step do better than its controls did?"""
    last = report.steps[-1].score
    others = [(other.name, other.final) for other in step.beside if other.final is not None]
    if last is None or not others:
        return None
    sign = 1 if last.higher_is_better else -1
    better = [(name, value) for name, value in others if sign * (value.value - last.value) > 0]
    text = ", ".join(f"{name} {form.metric(value.value)}" for name, value in others)
    verdict = f"{' and '.join(name for name, _ in better)} did better" if better else "none did better"
    close = not any(_apart(last, value) for _, value in others)
    chance = "; their 95 % intervals overlap, so this may be chance" if close else ""
    own = f"`{step.method}` came to {form.metric(last.value)} after the last step"
    return Statement("bad" if better else "good", f"{own}, beside it {text}: {verdict}{chance}.")


def _apart(first: Score, second: Score) -> bool:
    """True where both have intervals and these do not meet."""
    a, b = first.interval, second.interval
    return a is not None and b is not None and (a.low > b.high or b.low > a.high)


def parity(artifact: Artifact) -> Table:
    """Agreement with PyTorch, point by point."""
    rows = tuple(
        (
            str(point.batch),
            str(point.length),
            form.error(point.max_absolute),
            form.error(point.max_relative),
            point.note or ("yes" if point.within else "NO"),
        )
        for point in artifact.parity.points
    )
    return Table(("batch", "length", "largest absolute error", "largest relative error", "within"), rows)


def tolerances(artifact: Artifact) -> str:
    """The rule that parity was judged by."""
    return f"|file − PyTorch| ≤ {artifact.parity.atol:g} + {artifact.parity.rtol:g} × |PyTorch|, everywhere"


def files(report: Report) -> list[Artifact]:
    """Every compressed file, each step file behind the one that it belongs to."""
    whole = [measurement.artifact for measurement in report.compressed]
    return [file for artifact in whole for file in (artifact, artifact.step) if file is not None]


def quantization(artifact: Artifact) -> Table | None:
    """Every matrix of a quantized file and its form; none where nothing was rounded."""
    found = artifact.quantization
    if found is None:
        return None
    kinds = list(dict.fromkeys(kind for matrix in found.matrices for kind in matrix.errors))
    rows = tuple(
        (
            matrix.name,
            ", ".join(matrix.operators),
            form.shape(matrix.shape) if matrix.shape else "",
            _FORMS[matrix.form],
            _arrow(form.count(matrix.bytes_before), form.count(matrix.bytes_after)),
            *(form.error(matrix.errors[kind]) if kind in matrix.errors else "" for kind in kinds),
            "" if matrix.metric_drop is None else form.metric(matrix.metric_drop),
            matrix.note,
        )
        for matrix in found.matrices
    )
    errors = (f"error alone, {_FORMS[kind]}" for kind in kinds)
    lost = "metric lost alone"
    return _without_empty(Table(("matrix", "operator", "shape", "form", "bytes", *errors, lost, "why"), rows))


def rounding(artifact: Artifact) -> list[str]:
    """How a quantized file was checked, in sentences; none where nothing was rounded."""
    found = artifact.quantization
    if found is None:
        return []
    furthest = form.error(max(point.error for point in found.deviation))
    sizes = f"{len(found.structure.points)} batch sizes and lengths"
    where = "there"
    if found.calibration is not None:
        unseen = sum(point.batch for point in found.deviation)
        where = f"on {unseen} sequences of training data, such as the calibration has not seen where there are others"
    largest = form.error(max(point.max_absolute for point in found.structure.points))
    before = sum(matrix.bytes_before for matrix in found.matrices)
    after = sum(matrix.bytes_after for matrix in found.matrices)
    said = [
        f"Rounded to {found.precision} for {found.target}: matrices {form.count(before)} B → {form.count(after)} B. "
        f"Relative error of the outputs on {found.samples} sequences of training data: {form.error(found.error)} "
        f"(at most {found.max_error:g}); in the table, of each matrix rounded alone.",
        f"With its activations left in float the graph agrees with the float graph of the same rounded weights at "
        f"{sizes} (largest absolute error {largest}). The file itself is at most {furthest} (relative, norm) away from "
        f"PyTorch {where}.",
    ]
    if found.calibration is not None:
        said.append(
            f"Activations are in {found.activations}, with ranges by `{found.calibration}`. Accuracy and latency are "
            "those of ONNX Runtime on this CPU, for which this form is not made; nothing was run on an accelerator."
        )
    if found.function is not None and found.metric_drop is not None and found.metric_drop_allowed is not None:
        said.append(
            f"Rounding loses {form.metric(found.metric_drop)} of the metric by the task's `{found.function}`; the "
            f"recipe's limit leaves {form.metric(found.metric_drop_allowed)} for it."
        )
    return said


def tensors(artifact: Artifact) -> Table:
    """Inputs and outputs of a file."""
    rows = [("input", item) for item in artifact.inputs] + [("output", item) for item in artifact.outputs]
    cells = tuple((kind, item.name, item.dtype, form.shape(item.shape)) for kind, item in rows)
    return Table(("", "name", "type", "shape"), cells)


def operators(artifact: Artifact) -> str:
    """Operators and how many nodes of each: LSTM 2, Gemm 1."""
    ordered = sorted(artifact.operators.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {nodes}" for name, nodes in ordered)


def artifact_facts(artifact: Artifact) -> Table:
    """What a file is, its further files, and how it was made."""
    rows = [
        ("file", artifact.path),
        ("size", f"{form.count(artifact.bytes)} B ({form.size(artifact.bytes)})"),
        ("gzip -9", f"{form.count(artifact.gzip_bytes)} B ({form.size(artifact.gzip_bytes)})"),
        ("SHA-256", artifact.sha256),
    ]
    for part in artifact.parts:
        counted = "; its bytes count" if part.shipped else "; the phone does not need it"
        rows.append((f"with {part.path}", f"{form.count(part.bytes)} B: {part.purpose}{counted}"))
    if artifact.opset is not None and artifact.ir_version is not None:
        rows.append(("opset, IR version", f"{artifact.opset}, {artifact.ir_version}"))
    elif artifact.opset is not None:
        rows.append(("opset", str(artifact.opset)))
    if artifact.needs:
        rows.append(("needs", f"{artifact.needs} or newer"))
    if artifact.operators:
        rows.append(("operators", operators(artifact)))
    if artifact.runtime:
        rows.append(("compared with PyTorch in", artifact.runtime))
    for check in artifact.checks:
        largest = form.error(max(point.max_absolute for point in check.parity.points))
        rows.append((f"also in {check.runtime}", f"agrees with PyTorch, largest absolute error {largest}"))
    rows += [("how it was made", note) for note in artifact.notes]
    return Table(("", ""), tuple(rows))


def environment(report: Report) -> Table:
    """Where and with what the run was made."""
    here = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    return Table(
        ("", ""),
        (
            ("made", here.created),
            ("compressor", here.compressor),
            ("task", report.task),
            ("seed", str(report.seed)),
            ("recipe SHA-256", report.recipe_sha256),
            ("trained on", here.device),
            ("processor", f"{here.cpu}, {here.cores} cores"),
            ("platform", here.platform),
            ("Python", here.python),
            ("versions", versions),
        ),
    )


def recipe(report: Report) -> str:
    """The resolved recipe as YAML."""
    from compressor.plain_yaml import dump

    return dump(report.recipe).rstrip("\n")


def score(value: Score) -> str:
    """A metric with its interval: 0.9784 (0.9622 to 0.9919)."""
    text = form.metric(value.value)
    return text if value.interval is None else f"{text} ({form.between(value.interval, form.metric)})"


def _score_note(report: Report) -> str:
    """What the intervals behind the metric are."""
    first = report.original.score
    if first.interval is None and first.samples is None:
        return "The task gives no per-sample scores, so the metric has no interval."
    if first.interval is None:
        return f"Metric over {first.samples} samples that all score the same, so resampling gives no interval."
    return f"Metric with its {form.confidence(first.interval)}: percentile bootstrap over {first.samples} samples."


def _about(before: Measurement, after: Measurement, faster: SpeedUp | None) -> list[Statement]:
    found = [_metric_statement(before, after), _file_statement(before.artifact.bytes, after.artifact.bytes)]
    if faster is not None:
        found.append(Statement(_speed_tone(faster), _speed_sentence(faster)))
    found.append(_parity_statement(after.artifact))
    found += [Statement("plain", text) for text in _rounded_statements(after.artifact)]
    found += _step_statements(before, after)
    zeros = _zeros_statement(before, after)
    return [*found, zeros] if zeros else found


def _metric_statement(before: Measurement, after: Measurement) -> Statement:
    lost = drop(before, after)
    values = f"{form.metric(before.score.value)} → {form.metric(after.score.value)}"
    text = f"{before.score.metric} on the exported file: {values}"
    if lost.value == 0:
        return Statement("good", f"{text}, unchanged.")
    word = "worse" if lost.value > 0 else "better"
    text = f"{text}, {form.metric(abs(lost.value))} {word}"
    if lost.interval is None:
        return Statement(_drop_tone(lost), f"{text}.")
    ends = form.between(lost.interval, form.metric)
    chance = ""
    if lost.interval.low <= 0 <= lost.interval.high:
        chance = f"; it holds 0, so on {after.score.samples} samples this may be chance"
    return Statement(_drop_tone(lost), f"{text} ({form.confidence(lost.interval)} of the drop: {ends}{chance}).")


def _file_statement(before: int, after: int) -> Statement:
    changed = form.change(before, after, less="smaller", more="larger")
    tone: Tone = "plain" if changed == "same" else "good" if after < before else "bad"
    text = "The file is as large as before" if changed == "same" else f"The file is {changed}"
    return Statement(tone, f"{text}: {form.size(before)} → {form.size(after)}.")


def _speed_sentence(faster: SpeedUp) -> str:
    ends = f"{form.confidence(faster.interval)} {form.between(faster.interval, form.ratio)}"
    if faster.within_noise:
        return f"No measurable change in speed: {form.ratio(faster.ratio)}, within noise ({ends}, which holds 1)."
    if faster.ratio > 1:
        return f"The file runs {form.ratio(faster.ratio)} as fast ({ends})."
    return f"The file is slower: {form.ratio(faster.ratio)} as fast ({ends})."


def _rounded_statements(artifact: Artifact) -> list[str]:
    """Which forms a quantized file has, and what stayed float and why."""
    said = []
    for name, found in ((file.path, file.quantization) for file in (artifact, artifact.step) if file is not None):
        if found is None:
            continue
        counts = Counter(matrix.form for matrix in found.matrices)
        forms = ", ".join(f"{number} as {_FORMS[kind]}" for kind, number in counts.most_common())
        text = f"{name}: of {len(found.matrices)} matrices {forms}."
        kept = [matrix for matrix in found.matrices if matrix.form in ("float", "half")]
        if kept:
            first = max(kept, key=lambda matrix: matrix.bytes_before)
            text += f" Largest of those not rounded: {first.name} ({first.note})."
        if found.function == "evaluate":
            text += " What decided was `evaluate`, on the data of the report: give the task a `validate` on other data."
        said.append(text)
    return said


def _parity_statement(artifact: Artifact) -> Statement:
    points = artifact.parity.points
    if not artifact.parity.passed:
        return Statement("bad", "The file disagrees with PyTorch; see the table of agreement.")
    largest = form.error(max(point.max_absolute for point in points))
    shapes = len({(point.batch, point.length) for point in points})
    sizes = f"{shapes} batch sizes and lengths" if shapes > 1 else "the one batch size and length that it takes"
    where = "" if artifact.format == "onnx" or not artifact.runtime else f" in {artifact.runtime.partition(',')[0]}"
    if artifact.parity.rtol == 0:  # of a rounded file: a bound in parts of the largest output, and no agreement
        text = f"The rounded file is at most {largest} from PyTorch{where} at {sizes}"
        return Statement("plain", f"{text} (allowed: {artifact.parity.atol:.2g}).")
    subject = "The file" if artifact.quantization is None else "Before rounding, the file"
    text = f"{subject} agrees with PyTorch{where} at {sizes} (largest absolute error {largest})."
    return Statement("good", text)


def _step_statements(original: Measurement, after: Measurement) -> list[Statement]:
    """What to know of the step file; nothing where there is none."""
    artifact, step, before = after.artifact.step, after.step, original.step
    if artifact is None or step is None or artifact.stream is None:
        return []
    chunk = artifact.stream.chunk
    what = "one position" if chunk == 1 else f"{chunk} positions"
    taken = f" in {form.milliseconds(step.latency.p50)}" if step.latency else ""
    length = max(point.length for point in artifact.parity.points)
    largest = form.error(max(point.max_absolute for point in artifact.parity.points))
    text = (
        f"{artifact.path} takes {what} at a time{taken} and keeps {state_size(artifact.stream)} for a stream; its "
        f"steps agree with PyTorch over up to {length} positions (largest absolute error {largest})."
    )
    found = [Statement("good", text)]
    if before is not None and step.score.value != after.score.value:
        text = (
            f"{original.score.metric} step by step is {form.metric(step.score.value)}, on the whole-sequence "
            f"file {form.metric(after.score.value)}: the task's `evaluate` gives other sequences to the two, or counts "
            "padded positions."
        )
        found.append(Statement("plain", text))
    return found


def _zeros_statement(before: Measurement, after: Measurement) -> Statement | None:
    zeros = _sparsity(after)
    if zeros < _sparsity(before) + _NOTICEABLE_ZEROS:
        return None
    text = (
        f"{form.percent(zeros)} of the parameters left are zero. Zeros alone do not make the file faster or smaller: "
        "it stores and multiplies them like any other number."
    )
    packed = after.artifact.bytes / after.artifact.gzip_bytes
    if packed > _NOTICEABLE_RATIO * before.artifact.bytes / before.artifact.gzip_bytes:
        text += f" They do pack well: gzip makes this file {form.ratio(packed)} smaller."
    return Statement("plain", text)


def _measured(file: Measurement) -> tuple[str, ...]:
    latency = file.latency
    interval = file.score.interval
    return (
        form.metric(file.score.value),
        form.between(interval, form.metric) if interval else "none",
        form.metric(file.torch_score.value),
        form.count(file.parameters),
        f"{form.count(file.nonzeros)} ({form.percent(_sparsity(file))} zero)",
        form.large_count(file.macs),
        form.size(file.artifact.bytes),
        form.size(file.artifact.gzip_bytes),
        form.size(file.peak_memory_bytes),
        form.milliseconds(latency.p50) if latency else "not measured",
        f"{form.significant(latency.p10)} to {form.milliseconds(latency.p90)}" if latency else "not measured",
        str(latency.length) if latency else "",
        latency.runtime if latency else "",
    )


def _changes(before: Measurement, after: Measurement, faster: SpeedUp | None) -> tuple[str, ...]:
    lost = drop(before, after)
    return (
        _drop_in_short(lost),
        f"drop: {form.between(lost.interval, form.metric)}" if lost.interval else "",
        "",
        form.change(before.parameters, after.parameters, less="fewer", more="more"),
        form.change(before.nonzeros, after.nonzeros, less="fewer", more="more"),
        form.change(before.macs, after.macs, less="fewer", more="more"),
        form.change(before.artifact.bytes, after.artifact.bytes, less="smaller", more="larger"),
        form.change(before.artifact.gzip_bytes, after.artifact.gzip_bytes, less="smaller", more="larger"),
        form.change(before.peak_memory_bytes, after.peak_memory_bytes, less="less", more="more"),
        _speed_in_short(faster) if faster else "",
        f"ratio: {form.between(faster.interval, form.ratio)}" if faster else "",
        "",
        "",
    )


def _sparsity(file: Measurement) -> float:
    return 1 - file.nonzeros / file.parameters if file.parameters else 0.0


def _drop_in_short(lost: Drop) -> str:
    if lost.value == 0:
        return "unchanged"
    return f"{form.metric(abs(lost.value))} {'worse' if lost.value > 0 else 'better'}"


def _drop_tone(lost: Drop) -> Tone:
    if lost.value <= 0:
        return "good"
    return "plain" if lost.interval is None or lost.interval.low <= 0 else "bad"


def _speed_in_short(faster: SpeedUp) -> str:
    if faster.within_noise:
        return f"{form.ratio(faster.ratio)}, within noise"
    return f"{form.ratio(faster.ratio)} as fast" + ("" if faster.ratio > 1 else ", slower")


def _speed_tone(faster: SpeedUp) -> Tone:
    if faster.within_noise:
        return "plain"
    return "good" if faster.ratio > 1 else "bad"


def _size_card(title: str, before: int, after: int) -> Card:
    changed = form.change(before, after, less="smaller", more="larger")
    tone: Tone = "plain" if changed == "same" else "good" if after < before else "bad"
    return Card(title, form.size(before), form.size(after), changed, tone)


def _missed(limit: Limit) -> str:
    return f"{limit.name} reached {_quantity(limit.name, limit.reached)}, wanted {_bound(limit)}"


def _bound(limit: Limit) -> str:
    word = "at least" if _wants_more(limit.name) else "at most"
    return f"{word} {_quantity(limit.name, limit.limit)}"


def _wants_more(name: str) -> bool:
    return name.endswith(("ratio", "speedup"))


def _quantity(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return form.size(round(value))
    if name.endswith("_ms"):
        return form.milliseconds(value)
    return form.ratio(value) if _wants_more(name) else form.metric(value)


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value)


def _without_empty(table: Table) -> Table:
    """The table without columns that hold nothing."""
    kept = [index for index in range(len(table.header)) if any(row[index] for row in table.rows)]
    return Table(
        tuple(table.header[index] for index in kept), tuple(tuple(row[index] for index in kept) for row in table.rows)
    )

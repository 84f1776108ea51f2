"""Each exported file: what it is, its inputs and outputs, its agreement with PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render import labels
from compressor.render.blocks import Details, Group, Table, Text
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Artifact, Emulated, Parity, Report


def facts(artifact: Artifact) -> Table:
    """What a file is, its further files, and how it was made."""
    rows = [
        ("file", artifact.path),
        ("size", f"{form.count(artifact.bytes)} B ({form.size(artifact.bytes)})"),
        ("gzip -9", f"{form.count(artifact.gzip_bytes)} B ({form.size(artifact.gzip_bytes)})"),
        ("SHA-256", artifact.sha256),
    ]
    for part in artifact.parts:
        counted = "included in the size" if part.shipped else "not needed on the phone"
        rows.append((f"with {part.path}", f"{form.count(part.bytes)} B: {part.purpose}; {counted}"))
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
        largest = form.error(check.parity.largest_error)
        rows.append((f"also in {check.runtime}", f"agrees with PyTorch, largest absolute error {largest}"))
        rows += [
            (
                f"there, on {timed.threads} thread{'s' if timed.threads > 1 else ''}",
                f"{timed.p50:.3f} ms (10 to 90 %: {timed.p10:.3f} to {timed.p90:.3f}), batch 1, by the browser's clock",
            )
            for timed in check.latencies
        ]
    if artifact.emulated is not None:
        rows += on_board(artifact.emulated)
    rows += [("how it was made", note) for note in artifact.notes]
    return Table(("", ""), tuple(rows))


def on_board(emulated: Emulated) -> list[tuple[str, str]]:
    """What a program with the file takes on a microcontroller, and that this is emulated."""
    return [
        (f"on {emulated.cpu}, emulated", f"{emulated.board}, {emulated.compiler}; sizes and numbers, no speed"),
        ("flash", f"{form.count(emulated.flash_bytes)} B: the whole program, C library and start-up included"),
        ("RAM", f"{form.count(emulated.ram_bytes)} B, {form.count(emulated.stack_bytes)} B of it the deepest stack"),
        ("instructions of a call", f"{form.count(emulated.instructions)}, the most of {emulated.calls} calls"),
        ("agrees there", f"largest absolute difference {form.error(emulated.max_absolute)}"),
    ]


def operators(artifact: Artifact) -> str:
    """Operators and how many nodes of each: LSTM 2, Gemm 1."""
    ordered = sorted(artifact.operators.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {nodes}" for name, nodes in ordered)


def tensors(artifact: Artifact) -> Table:
    """Inputs and outputs of a file."""
    named = [("input", item) for item in artifact.inputs] + [("output", item) for item in artifact.outputs]
    rows = tuple((kind, item.name, item.dtype, form.shape(item.shape)) for kind, item in named)
    return Table(("", "name", "type", "shape"), rows)


def has_lengths(artifact: Artifact) -> bool:
    """Whether a file takes sequences of several lengths, or was compared at several."""
    compared = {point.length for point in artifact.parity.points}
    return len(compared) > 1 or any("time" in item.shape for item in (*artifact.inputs, *artifact.outputs))


def parity(artifact: Artifact) -> Table:
    """Agreement with PyTorch, point by point; lengths only if there are several."""
    timed = has_lengths(artifact)
    real = any(point.origin != "example" for point in artifact.parity.points)
    further = tuple(dict.fromkeys(name for point in artifact.parity.points for name in point.sizes))
    rows = tuple(
        (
            str(point.batch),
            *((str(point.length),) if timed else ()),
            *(str(point.sizes.get(name, "")) for name in further),
            form.error(point.max_absolute),
            form.error(point.max_relative),
            *((point.origin,) if real else ()),
            point.note or ("yes" if point.within else "NO"),
        )
        for point in artifact.parity.points
    )
    origin = ("inputs of",) if real else ()
    length = ("length",) if timed else ()
    heads = ("batch", *length, *further, "largest absolute error", "largest relative error", *origin, "within")
    return Table(heads, rows)


def rule(judged: Parity) -> str:
    """What the comparison asks for, in a sentence."""
    usual = f"|file − PyTorch| ≤ {judged.atol:g} + {judged.rtol:g} × |PyTorch|, everywhere"
    if judged.noise is None:
        return usual
    noise = judged.noise
    own = "PyTorch in float32 and in float64" if noise.precision == "float32" else "the model in float16 and in float32"
    return f"{usual}; or at most {noise.multiple:g} × what {own} differ by ({form.error(noise.largest)})"


def states(artifact: Artifact) -> Table | None:
    """The states of a step file; None if it is no step file."""
    if artifact.stream is None:
        return None
    rows = tuple(
        (
            state.name,
            state.next_name,
            state.dtype,
            form.shape(state.shape),
            f"{state.initial:g}" if isinstance(state.initial, float) else f"{len(state.initial)} given numbers",
        )
        for state in artifact.stream.states
    )
    return Table(("state", "its next value", "type", "shape", "at the start"), rows)


def chained(artifact: Artifact) -> str:
    """Agreement of a step file with the whole-sequence file, in a sentence; empty if it was not compared."""
    if artifact.chained is None:
        return ""
    largest = form.error(artifact.chained.largest_error)
    lengths = ", ".join(str(length) for length in sorted({point.length for point in artifact.chained.points}))
    before = "Before rounding, chained" if artifact.quantization is not None else "Chained"
    text = f"{before} steps agree with the whole-sequence file at lengths {lengths} (largest absolute error {largest})."
    if artifact.quantization is None or not artifact.quantization.beside_whole:
        return text
    apart = max(point.error for point in artifact.quantization.beside_whole)
    return f"{text} The rounded files are at most {form.error(apart)} (relative, norm) apart."


def _blocks(artifact: Artifact) -> Iterator[Block]:
    yield facts(artifact)
    yield Group("Inputs and outputs", (tensors(artifact),))
    if (kept := states(artifact)) is not None:
        yield Group("States", (kept,))
    judged = artifact.parity
    steps = [Text(chained(artifact), muted=True)] if artifact.chained is not None else []
    yield Group(_agreement(artifact), (Text(rule(judged), muted=True), parity(artifact), *steps))


def _agreement(artifact: Artifact) -> str:
    """What the comparison with PyTorch is about: of a file in 8 or 4 bits the float file that it was made from."""
    return "Agreement with PyTorch" if artifact.quantization is None else "Agreement of the file before rounding"


def _file(name: str, artifact: Artifact, *, unfolded: bool = False) -> Iterator[Details]:
    passed = "passed" if artifact.parity.passed else "FAILED"
    passed += " before rounding" if artifact.quantization is not None else ""
    title = f"{name}: {artifact.path}, {form.size(artifact.bytes)}, parity {passed}"
    yield Details(title, tuple(_blocks(artifact)), unfolded=unfolded)
    if artifact.step is not None:
        yield from _file(f"{name}, step by step", artifact.step)


def _section(report: Report) -> tuple[Details, ...]:
    compressed = [
        _file(labels.compressed(report, index), measurement.artifact, unfolded=True)
        for index, measurement in enumerate(report.compressed)
    ]
    originals = [_file(name, original.artifact) for name, original in labels.originals(report)]
    return tuple(details for files in (*compressed, *originals) for details in files)


EXPORTED_FILES: Section[Report] = Section("Exported files", _section, views=DOCUMENTS, folded=True)

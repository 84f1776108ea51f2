"""What was rounded to 8 or 4 bits in each file, and how it was checked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Group, Items, Statement, Table, Text
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.render.blocks import Block
    from compressor.report import Artifact, Quantization, Report

_FORMS: Final = {
    "float": "float32",
    "half": "float16 in the file",
    "weights": "8 bits in the file",
    "integer": "8-bit integers",
    "int4": "4 bits",
    "static": "calibrated integers",
    **{f"weights{bits}": f"{bits} bits in the file" for bits in range(2, 7)},
    **{f"integer{bits}": f"{bits} bits in the file, 8-bit integers" for bits in range(2, 7)},
}
"""How a matrix is stored; float in front of its operator unless it says integers or 4 bits."""


def table(rounded: Quantization) -> Table:
    """Every matrix and its form."""
    mixed = rounded.precision == "mixed"  # each has a form of its own: a column for every form would be nearly empty
    kinds = [] if mixed else list(dict.fromkeys(kind for matrix in rounded.matrices for kind in matrix.errors))
    rows = tuple(
        (
            matrix.name,
            ", ".join(matrix.operators),
            form.shape(matrix.shape) if matrix.shape else "",
            _FORMS[matrix.form],
            form.arrow(form.count(matrix.bytes_before), form.count(matrix.bytes_after)),
            form.error(matrix.errors[matrix.form]) if mixed and matrix.form in matrix.errors else "",
            *(form.error(matrix.errors[kind]) if kind in matrix.errors else "" for kind in kinds),
            "" if matrix.metric_drop is None else form.metric(matrix.metric_drop),
        )
        for matrix in rounded.matrices
    )
    errors = (f"error alone, {_FORMS[kind]}" for kind in kinds)
    header = ("matrix", "operator", "shape", "form", "bytes", "error alone", *errors, "metric lost alone")
    return Table(header, rows).without_empty_columns()


def reasons(rounded: Quantization) -> tuple[str, ...]:
    """Why matrices are in another form than asked, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for matrix in rounded.matrices:
        if matrix.note:
            names.setdefault(matrix.note, []).append(matrix.name)
    return tuple(f"{', '.join(matrices)}: {note}" for note, matrices in names.items())


def checks(rounded: Quantization) -> Iterator[str]:
    """How a rounded file was checked, in sentences."""
    before = sum(matrix.bytes_before for matrix in rounded.matrices)
    after = sum(matrix.bytes_after for matrix in rounded.matrices)
    yield (
        f"Rounded to {rounded.precision} for {rounded.target}: matrices {form.count(before)} B → {form.count(after)} "
        f"B. Relative error of the outputs on {rounded.samples} sequences of training data: "
        f"{form.error(rounded.error)} (at most {rounded.max_error:g}); in the table, of each matrix rounded alone."
    )
    if rounded.method == "second_order":
        chosen = [matrix.name for matrix in rounded.matrices if matrix.second_order == 1]
        others = [
            f"{matrix.name} ({matrix.second_order:.0%} of its rows)" if matrix.second_order else matrix.name
            for matrix in rounded.matrices
            if matrix.second_order < 1 and matrix.form not in ("float", "half")
        ]
        yield (
            f"Integers of {form.plural(len(chosen), 'matrix', 'matrices')} by second order on training data"
            + (f"; each weight to the nearest in {', '.join(others)}." if others else ".")
        )
    yield (
        "With its activations left in float the graph agrees with the float graph of the same rounded weights at "
        f"{len(rounded.structure.points)} batch sizes and lengths (largest absolute error "
        f"{form.error(rounded.structure.largest_error)}). The file itself is at most "
        f"{form.error(max(point.error for point in rounded.deviation))} (relative, norm) away from PyTorch "
        f"{_on_what(rounded)}."
    )
    if rounded.calibration is not None:
        yield (
            f"Activations are in {rounded.activations}, with ranges by `{rounded.calibration}`. Accuracy and latency "
            "are those of ONNX Runtime on this CPU, for which this form is not made; nothing was run on an accelerator."
        )
    if rounded.function is not None and rounded.metric_drop is not None and rounded.metric_drop_allowed is not None:
        yield (
            f"Rounding loses {form.metric(rounded.metric_drop)} of the metric by the task's `{rounded.function}`; the "
            f"recipe's limit leaves {form.metric(rounded.metric_drop_allowed)} for it."
        )


def statement(artifact: Artifact) -> Statement | None:
    """Which forms a file has, and which of the matrices that stayed float is the largest; None if none was rounded."""
    if artifact.quantization is None:
        return None
    matrices = artifact.quantization.matrices
    counts = Counter(matrix.form for matrix in matrices).most_common()
    forms = ", ".join(f"{number} as {_FORMS[kind]}" for kind, number in counts)
    text = f"{artifact.path}: of {form.plural(len(matrices), 'matrix', 'matrices')} {forms}."
    kept = [matrix for matrix in matrices if matrix.form in ("float", "half")]
    if kept:
        largest = max(kept, key=lambda matrix: matrix.bytes_before)
        text += f" Largest of those not rounded: {largest.name}{f' ({largest.note})' if largest.note else ''}."
    if artifact.quantization.function == "evaluate":
        text += " `evaluate` decided, on the data of the report: give the task a `validate` on other data."
    return Statement("plain", text)


def _on_what(rounded: Quantization) -> str:
    if rounded.calibration is None:
        return "there"
    unseen = sum(point.batch for point in rounded.deviation)
    return f"on {unseen} sequences of training data, which the calibration has not seen if the task has enough"


def _file(artifact: Artifact) -> Iterator[Block]:
    if artifact.quantization is not None:
        notes = reasons(artifact.quantization)
        yield Group(
            artifact.path,
            (
                table(artifact.quantization),
                *([Items(notes)] if notes else []),
                *(Text(check, muted=True) for check in checks(artifact.quantization)),
            ),
        )
    if artifact.step is not None:
        yield from _file(artifact.step)


def _section(report: Report) -> tuple[Block, ...]:
    return tuple(block for measurement in report.compressed for block in _file(measurement.artifact))


ROUNDING: Section[Report] = Section("Rounded weights", _section, folded=True)

"""A checked float graph in 8 or 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from exporters.onnx_files import facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx
    from torch import nn

    from compressor.formats import Found, Job
    from compressor.progress import Bar
    from compressor.report import Artifact, Parity, StreamInfo
    from compressor.surgery.second_order.table import RowTable
    from exporters.onnx_files.options import Options
    from exporters.quantization.options import Rounding

_STREAMED = 8
"""Most sequences on which rounding of a step file is measured."""
_BY_ROW = (
    "Each position is rounded by a scale of its own, as in the step file: one model. Exported without `stream` the "
    "file of whole sequences is faster."
)
_ACCELERATORS = ("qnn", "nnapi")
"""Of whose tables the report says what they take of a file for NPUs."""


class Once(Protocol):
    """`Job.once` of one graph."""

    def __call__(self, what: str, own: tuple[Any, ...], find_out: Callable[[], Found]) -> Found:
        """What `find_out` gives, or gave for the same settings before."""


def table(
    proto: onnx.ModelProto, folder: Path, reference: nn.Module, job: Job[Options], bar: Bar, once: Once
) -> RowTable | None:
    """The rows of a model's weights, rounded by second order on training data; None if that was not asked for.

    One for all files of an export, so that their integers are the same.

    Args:
        proto: The float graph of whole sequences; a draft of it in `folder`.
        folder: For temporary files.
        reference: The PyTorch model.
        job: The export.
        bar: Told what is rounded.
        once: For what other files of the model need too.
    """
    from compressor.surgery.second_order.table import fill
    from exporters.quantization import allocation, calibration

    rounding = job.options.rounding
    mixed = job.options.precision == "mixed"
    if rounding is None or (rounding.method == "nearest" and not mixed):
        return None
    settings = rounding.calibration_samples, rounding.block, rounding.method, rounding.keep_float
    data = once("data", settings[:1], lambda: calibration.calibration(job.task, settings[0], job.seed, real=False))
    second_order = data.real and rounding.method == "second_order"

    def told(name: str) -> None:
        bar.advance(0, note=f"round {name}")

    if mixed:
        return allocation.table(
            proto,
            folder,
            job.task,
            reference,
            rounding,
            data,
            second_order=second_order,
            bar=bar,
            once=lambda find_out: once("losses", settings, find_out),
        )
    if not second_order:
        return None
    fewer = job.options.precision == "int4"
    return once(
        "rows",
        (fewer, *settings),
        lambda: fill(
            reference,
            data.seen,
            bits=lambda _, is_matrix: (8, 4) if fewer and is_matrix else (8,),
            block=rounding.block,
            told=told,
        ),
    )


def checked(
    proto: onnx.ModelProto,
    candidate: Path,
    reference: nn.Module,
    job: Job[Options],
    rounding: Rounding,
    parity: Parity,
    bar: Bar,
    table: RowTable | None,
    stream: StreamInfo | None = None,
) -> tuple[Artifact, dict[Path, Path]]:
    """The graph in fewer bits.

    Args:
        proto: The float graph; a draft of it in the folder of `candidate`.
        candidate: Its file, which that of the rounded graph replaces.
        reference: The PyTorch model.
        job: The export.
        rounding: How.
        parity: How far the float graph agrees with PyTorch.
        bar: Told what is measured.
        table: Rows of the model's weights that are rounded already.
        stream: How a step file is run.

    Returns:
        The facts about the file, and where each of its files goes -> where it is.
    """
    from compressor.measure.agreement import Tolerances
    from compressor.runtimes.forward import Fixed
    from compressor.runtimes.steps import Steps
    from compressor.task.fixed_axes import dynamic
    from exporters.passes import validity
    from exporters.quantization import quantize
    from exporters.quantization.products import DOMAIN
    from exporters.quantization.whole_file import NothingSaved
    from exporters.stepping.sequences import Sequences

    options, task = job.options, job.task
    if stream is not None and not rounding.for_npu:  # every position of every sequence is a call
        few = min(_STREAMED, rounding.calibration_samples)
        rounding = rounding.model_copy(update={"calibration_samples": few})
    by_row = stream is None and options.streams
    try:
        rounded, quantization = quantize.quantize(
            proto,
            candidate.parent,
            task,
            reference,
            rounding,
            precision=options.integers,
            atol=Tolerances(parity.atol, parity.rtol, parity.noise).absolute,
            rtol=parity.rtol,
            shapes=None if stream is None else Sequences(task, stream.inputs),
            behind=lambda file: Fixed(file, dynamic(task)) if stream is None else Steps(file.path, file=file),
            table=table,
            stream=stream,
            metric=None if job.metric_drop is None else quantize.metric_of(task, job.metric_drop),
            seed=job.seed,
            bar=bar,
            by_row=by_row,
        )
    except NothingSaved as error:
        kept = facts.write_files(proto, candidate.parent, job.path, options)
        note = f"`precision: {options.precision}` was left out: {error.message}"
        return facts.artifact(candidate, kept, parity, job.seconds).model_copy(update={"notes": (note,)}), kept
    validity.check(rounded, options.opset, {DOMAIN: 1} if rounding.quantize_for == "cpu" else {})
    files = facts.write_files(rounded, candidate.parent, job.path, options)
    artifact = facts.artifact(candidate, files, parity, job.seconds)
    notes = _taken(proto, candidate) if rounding.for_npu else ()
    if by_row and (options.precision, rounding.quantize_for) == ("int8", "cpu"):
        notes = (_BY_ROW,)
    return artifact.model_copy(update={"quantization": quantization, "notes": notes}), files


def _taken(before: onnx.ModelProto, candidate: Path) -> tuple[str, ...]:
    """What accelerators take of a file, and took of the float graph, by the tables of `compressor check`."""
    from compressor.onnx_graphs import targets
    from compressor.onnx_graphs.partition import survey
    from compressor.render.format import plural
    from compressor.runtimes import loading

    notes = []
    for name in _ACCELERATORS:
        target = targets.get(name)
        old, new = (survey(proto, target) for proto in (before, loading.read(candidate)))
        notes.append(
            f"{target.title} takes {new.taken} of {new.nodes} nodes in {plural(new.partitions, 'partition')} "
            f"({old.taken} of {old.nodes} in {old.partitions} of the float graph), by the table of `compressor check`"
        )
    return tuple(notes)

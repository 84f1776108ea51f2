"""From a checked float graph to a checked one in 8 or 4 bits.

Rounding changes numbers, so such a file cannot agree with PyTorch to 1e-5. What is proven instead, at every pair of
batch and length at which a file is checked:

1. The float graph agrees with PyTorch (before this module is called).
2. The quantized graph with its activations left in float (same integers, scales, layouts, loops and masks, products in
   float) agrees with the float graph that holds the same rounded weights, within ten times the export's tolerances.
3. The relative error of the quantized file itself stays below `deviation_limit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from compressor.errors import ExportError, ParityError
from compressor.measure import accuracy, parity
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.report import Parity, Quantization, QuantizationPoint, QuantizedMatrix
from compressor.runtimes.onnx_runtime import Feed, OnnxFile
from compressor.task.fixed_axes import FixedAxes, dynamic
from compressor.task.view import has_validation_data
from exporters.quantization import choice, static
from exporters.quantization.matrices import SMALLEST, find, name_by_parameters
from exporters.quantization.rewrite import Rewriter, Weights, restored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx
    from torch import nn

    from compressor.progress import Bar
    from compressor.report import StreamInfo
    from compressor.task.contract import Task
    from exporters.quantization.choice import Chosen, Forward, Metric
    from exporters.quantization.matrices import Matrix
    from exporters.quantization.rewrite import Writer

_SUMS = 10
"""Of the export's tolerances: a Scan sums in another order than a native node, over and over."""
DEVIATION = 3.0
"""Of `max_error`, which is over all calibration data; a single short sequence may be further off."""
_UNSEEN = 16
"""Sequences of training data, of which the calibration has seen none, that files for NPUs are compared on."""


class Settings(Protocol):
    """The exporter's options that count here."""

    @property
    def precision(self) -> str:
        """`int8` or `int4`."""

    @property
    def quantize_for(self) -> str:
        """`cpu`, `anywhere` or `npu`."""

    @property
    def keep_float(self) -> tuple[str, ...]:
        """Globs of matrices."""

    @property
    def calibration_samples(self) -> int:
        """How many sequences errors are measured on."""

    @property
    def max_error(self) -> float:
        """Of the outputs."""

    @property
    def block(self) -> int:
        """Weights with a common scale in 4 bits."""

    @property
    def activations(self) -> str:
        """For NPUs: `uint8` or `uint16`."""

    @property
    def calibration(self) -> str:
        """For NPUs: `minmax`, `percentile` or `entropy`."""

    @property
    def per_channel(self) -> bool:
        """For NPUs: a scale for each output of a matrix."""

    @property
    def atol(self) -> float:
        """Absolute tolerance."""

    @property
    def rtol(self) -> float:
        """Relative tolerance."""


def quantize(
    proto: onnx.ModelProto,
    folder: Path,
    task: Task,
    reference: nn.Module,
    options: Settings,
    *,
    shapes: Task | None = None,
    behind: Callable[[OnnxFile], Forward],
    stream: StreamInfo | None = None,
    metric: Callable[[Forward], Metric] | None,
    seed: int,
    bar: Bar,
) -> tuple[onnx.ModelProto, Quantization]:
    """The graph with its matrices in fewer bits, and what was measured.

    Args:
        proto: The float graph, known to agree with `reference`.
        folder: Where files may be written for a while.
        task: Gives calibration data, and the lengths at which the file is checked.
        reference: The PyTorch model.
        options: Of the exporter.
        shapes: Gives the inputs with which files are compared; `task` where it is left out.
        behind: Puts a file behind the call of the model.
        stream: Where it is a step file: how that is run.
        metric: Given the float file: the task's metric, where that decides.
        seed: Of the calibration data.
        bar: Told what is measured.

    Raises:
        ExportError: There is nothing to round, or nothing within the limits.
        ParityError: The file is not what it should be at some length.
    """
    name_by_parameters(proto, {name: part.detach().cpu().numpy() for name, part in reference.named_parameters()})
    npu = options.quantize_for == "npu"
    if npu:
        proto = static.prepared(proto, "give `batch: 1`; a state that grows is nothing for NPUs" if stream else "")
    matrices = find(proto, options.keep_float, 1 if npu else SMALLEST)
    _refuse_nothing(matrices)
    weights = Weights(proto, matrices, options.block)
    data = _calibration(task, options.calibration_samples, seed, real=npu)
    writer: Writer = Rewriter(proto, weights)
    if npu:
        bar.advance(0, note="calibrate")
        matrices = [*static.fit(proto, matrices), *static.operators(proto, matrices, options.keep_float)]
        how = static.Calibration(options.calibration, options.activations, options.per_channel)
        same = {name: state.name for state in stream.states for name in (state.name, state.next_name)} if stream else {}
        feeds = _feeds(proto, folder, behind, data.seen)
        writer = static.Writer(proto, matrices, weights, how, feeds, folder, same)
    _refuse_unused(options.keep_float, matrices)
    trials = choice.Trials(writer, folder, lambda path: behind(OnnxFile(path)), data.seen)
    if metric is not None:
        trials.metric = metric(trials.forward({}))
    chosen = choice.choose(trials, matrices, options.precision, options.quantize_for, options.max_error, bar)
    bar.advance(0, note="compare the rounded file")
    made = writer.write(chosen.forms)
    constants = _constants(matrices, made) if npu else {}
    structure = _structure(proto, trials, chosen, shapes or task, options, seed)
    compared = [(*pair, (shapes or task).example(*pair)) for pair in parity.points(shapes or task)]
    if npu:  # ranges hold for data like the calibration's, and the task's examples may be random
        compared = [(_size(task, inputs, "batch"), _size(task, inputs, "time"), inputs) for inputs in data.unseen]
    deviation = _deviation(trials.forward(chosen.forms), reference, compared, options)
    return made, Quantization(
        precision="int4" if options.precision == "int4" else "int8",
        target=options.quantize_for,
        matrices=tuple(_fact(matrix, chosen, writer, options, constants) for matrix in matrices),
        samples=sum(_size(task, inputs, "batch") for inputs in trials.calibration),
        calibration=options.calibration if npu else None,
        activations=options.activations if npu else None,
        error=chosen.error,
        max_error=options.max_error,
        structure=structure,
        deviation=deviation,
        function=None if trials.metric is None else trials.metric.function,
        metric_drop=chosen.metric_drop,
        metric_drop_allowed=None if trials.metric is None else trials.metric.allowed,
    )


def metric_of(task: Task, allowed: float) -> Callable[[Forward], Metric]:
    """The task's metric as `quantize` takes it, on validation data where the task has some."""
    validation = has_validation_data(task)

    def value(forward: Forward) -> float:
        return accuracy.score(task, forward, validation=validation).value

    def beside(file: Forward) -> Metric:
        base, sign = value(file), 1.0 if task.higher_is_better else -1.0
        function: Literal["validate", "evaluate"] = "validate" if validation else "evaluate"
        return choice.Metric(function, lambda forward: sign * (base - value(forward)), max(0.0, allowed))

    return beside


def _refuse_nothing(matrices: Sequence[Matrix]) -> None:
    if any(not matrix.refused for matrix in matrices):
        return
    found = "; ".join(f"`{matrix.name}`: {matrix.refused}" for matrix in matrices[:5])
    raise ExportError(
        f"there is nothing to quantize: {found or 'the graph has no weight of two or more axes'}",
        hint="leave `precision` out for this model",
    )


def _refuse_unused(patterns: Sequence[str], matrices: Sequence[Matrix]) -> None:
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(matrix.name, pattern) for matrix in matrices):
            names = ", ".join(f"`{matrix.name}`" for matrix in matrices[:12])
            raise ExportError(f"`keep_float: {pattern}` fits no matrix", hint=f"there are {names}")


@dataclass(frozen=True)
class _Data:
    """Training inputs."""

    seen: list[tuple[Tensor, ...]]
    """What errors are measured on, and ranges."""
    unseen: list[tuple[Tensor, ...]]
    """Others, or some of the same where there are no others."""


def _calibration(task: Task, samples: int, seed: int, *, real: bool) -> _Data:
    """Training inputs, or the task's examples where there are none and nothing has to be `real`.

    Raises:
        ExportError: No batch has the sizes that the file fixes, there is none at all, or one has NaN.
    """
    seen: list[tuple[Tensor, ...]] = []
    unseen: list[tuple[Tensor, ...]] = []
    left, more, others = samples, _UNSEEN if real else 0, set()
    for inputs, _ in task.batches(torch.Generator().manual_seed(seed)):
        wrong = _other_sizes(task, inputs)
        if wrong:
            others.add(wrong)
            continue
        count = _size(task, inputs, "batch")
        if left > 0:
            seen.append(_rows(task, inputs, 0, left))
        if more > 0 and count > left:
            unseen.append(_rows(task, inputs, max(left, 0), more))
            more -= _size(task, unseen[-1], "batch")
        left -= count
        if left <= 0 and more <= 0:
            break
    if not seen and others:
        raise ExportError(
            f"no batch of training data has the sizes of `shapes`: there are {', '.join(sorted(others)[:8])}",
            hint="let the task's `batches` give what the phone will give, padded to that size; or fix another one",
        )
    if not seen and real:
        raise ExportError(
            "the task's `batches` give no data to calibrate with",
            hint="let `batches` give training inputs; for `quantize_for: cpu` or `anywhere` examples would do",
        )
    seen = seen or [task.example(min(samples, 16), task.length)]
    _refuse_nan(task, seen)
    return _Data(seen, unseen or seen[-1:])


def _other_sizes(task: Task, inputs: tuple[Tensor, ...]) -> str:
    """The first axis that has another size than the file fixes, as `time 23`; empty where all are right."""
    if isinstance(task, FixedAxes):
        for axes, part in zip(task.task.inputs.values(), inputs, strict=True):
            for axis, word in axes.items():
                if word != "batch" and task.sizes.get(word, part.shape[axis]) != part.shape[axis]:
                    return f"{word} {part.shape[axis]}"
    return ""


def _refuse_nan(task: Task, batches: Sequence[tuple[Tensor, ...]]) -> None:
    for inputs in batches:
        for name, part in zip(task.inputs, inputs, strict=True):
            if part.is_floating_point() and not bool(part.isfinite().all()):
                raise ExportError(
                    f"the training data has NaN or infinity in `{name}`, so nothing can be measured on it",
                    hint="clean what the task's `batches` give",
                )


class _Recorded(OnnxFile):
    """A file that keeps what it is given."""

    def __init__(self, path: Path) -> None:
        """Load it."""
        super().__init__(path)
        self.feeds: list[Feed] = []

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """As every file."""
        self.feeds.append(dict(feed))
        return super().run(feed)


def _feeds(
    proto: onnx.ModelProto, folder: Path, behind: Callable[[OnnxFile], Forward], batches: Sequence[tuple[Tensor, ...]]
) -> list[Feed]:
    """The inputs of every call of a file that these batches take: of each sample, and of a step file of each step."""
    path = folder / "float.onnx"
    path.write_bytes(proto.SerializeToString())
    file = _Recorded(path)
    forward = behind(file)
    for inputs in batches:
        forward(*inputs)
    return file.feeds


def _rows(task: Task, inputs: tuple[Tensor, ...], start: int, count: int) -> tuple[Tensor, ...]:
    """Samples of a batch from `start` on, `count` at most."""
    kept = []
    for axes, part in zip(dynamic(task).inputs.values(), inputs, strict=True):
        axis = next((axis for axis, word in axes.items() if word == "batch"), None)
        size = 0 if axis is None else min(count, part.shape[axis] - start)
        kept.append(part.cpu() if axis is None else part.cpu().narrow(axis, start, size))
    return tuple(kept)


def _size(task: Task, inputs: tuple[Tensor, ...], word: str) -> int:
    """Of the axis of that name."""
    for axes, part in zip(dynamic(task).inputs.values(), inputs, strict=True):
        for axis, name in axes.items():
            if name == word:
                return int(part.shape[axis])
    return 1


def _structure(
    proto: onnx.ModelProto,
    trials: choice.Trials,
    chosen: Chosen,
    task: Task,
    options: Settings,
    seed: int,
) -> Parity:
    path = trials.folder / "restored.onnx"
    path.write_bytes(restored(proto, trials.writer, chosen.forms).SerializeToString())
    found = parity.check(
        trials.open(path),
        trials.forward(chosen.forms, exact=True),
        task,
        atol=_SUMS * options.atol,
        rtol=_SUMS * options.rtol,
        generator=torch.Generator().manual_seed(seed),
    )
    if not found.passed:
        raise ParityError(
            "the quantized graph does not compute what its rounded weights say "
            f"(atol {found.atol:g}, rtol {found.rtol:g}):\n" + parity.table(found),
            hint="where every point is close, raise atol and rtol; else keep matrices out with `keep_float`",
        )
    return found


def _deviation(
    forward: Forward,
    reference: nn.Module,
    compared: Sequence[tuple[int, int, tuple[Tensor, ...]]],
    options: Settings,
) -> tuple[QuantizationPoint, ...]:
    """The file beside PyTorch on inputs of a batch size and a length."""
    from exporters.capture.program import plain_attention

    limit, found = DEVIATION * options.max_error, []
    for batch, length, inputs in compared:
        with torch.no_grad(), plain_attention():
            wanted = reference(*inputs)
        sides = [(part,) if isinstance(part, Tensor) else tuple(part) for part in (wanted, forward(*inputs))]
        error = choice.relative_error([sides[0]], [sides[1]])
        found.append(QuantizationPoint(batch=batch, length=length, error=error, within=error <= limit))
    if not all(point.within for point in found):
        lines = "\n".join(f"  batch {point.batch}, length {point.length}: {point.error:.3g}" for point in found)
        raise ParityError(
            f"the quantized file is further from PyTorch than {DEVIATION:g} x max_error = {limit:g}:\n{lines}",
            hint="give a smaller max_error, so that more stays float, or a larger one to accept this",
        )
    return tuple(found)


def _constants(matrices: Sequence[Matrix], made: onnx.ModelProto) -> dict[str, int]:
    """Weights that no operator multiplies and that are integers in the file -> their bytes."""
    import onnx

    found = {}
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    for matrix in matrices:
        tensor = stored.get(f"{matrix.name}_quantized")
        if matrix.shape and not matrix.channels and tensor is not None:
            found[matrix.name] = int(onnx.numpy_helper.to_array(tensor).nbytes)
    return found


def _fact(
    matrix: Matrix, chosen: Chosen, writer: Writer, options: Settings, constants: Mapping[str, int]
) -> QuantizedMatrix:
    form = chosen.forms[matrix.name]
    note = matrix.refused or chosen.notes.get(matrix.name, "") or matrix.unfit
    asked: Literal["int4", "integer"] = "int4" if options.precision == "int4" else "integer"
    if not note and form == "weights" and asked == "integer" and options.quantize_for == "cpu" and matrix.is_product:
        note = matrix.slower_as_integers
    elif not note and form == "weights" and options.quantize_for == "cpu" and not matrix.is_product:
        which = "a table of rows" if matrix.is_table else ", ".join(dict.fromkeys(u.operator for u in matrix.uses))
        note = f"{which}: no {asked} form"
    bytes_after = writer.stored_bytes(matrix.name, form)
    if form == "static" and not note and any(use.operator in RECURRENT for use in matrix.uses):
        kinds = " and ".join(sorted({use.operator for use in matrix.uses}))
        note = f"{kinds} as plain operations for every position: few NPUs have it as an operator of integers"
    if constants.get(matrix.name):
        form, bytes_after = "static", constants[matrix.name]
        note = f"a constant of {' and '.join(sorted({use.operator for use in matrix.uses}))}, rounded as an activation"
    return QuantizedMatrix(
        name=matrix.name,
        operators=tuple(dict.fromkeys(use.operator for use in matrix.uses)),
        shape=matrix.shape,
        form=form,
        bytes_before=matrix.bytes,
        bytes_after=bytes_after,
        errors={str(key): value for key, value in chosen.alone.get(matrix.name, {}).items()},
        metric_drop=chosen.metric_alone.get(matrix.name),
        note=note,
    )

"""From a checked float graph to a checked one in 8 or 4 bits.

Rounding changes numbers, so such a file cannot agree with PyTorch to 1e-5. What is proven instead, at every pair of
batch and length at which a file is checked:

1. The float graph agrees with PyTorch (before this module is called).
2. The quantized graph with its activations left in float (same integers, scales, layouts, loops and masks, products in
   float) agrees with the float graph that holds the same rounded weights, within ten times the export's tolerances.
3. The relative error of the quantized file itself stays below three times `max_error`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from compressor.errors import ExportError
from compressor.measure import accuracy, parity
from compressor.report import Quantization
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task import samples
from compressor.task.random_state import seeded_everywhere
from compressor.task.view import has_validation_data
from exporters.passes import external_data
from exporters.quantization import allocation, calibration, facts, proof
from exporters.quantization.choice import choose
from exporters.quantization.forms import ladder
from exporters.quantization.matrices import SMALLEST, find
from exporters.quantization.npu import prepare
from exporters.quantization.npu.ranges import Calibration
from exporters.quantization.npu.writer import NpuWriter
from exporters.quantization.trials import Metric, Trials
from exporters.quantization.weights import Weights
from exporters.quantization.whole_file import no_larger
from exporters.quantization.writing import Rewriter, file_of_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx
    from torch import Tensor, nn

    from compressor.progress import Bar
    from compressor.report import StreamInfo
    from compressor.surgery.second_order.table import RowTable
    from compressor.task.contract import Task
    from exporters.quantization.calibration import Data
    from exporters.quantization.matrices import Matrix
    from exporters.quantization.options import Rounding
    from exporters.quantization.trials import Forward
    from exporters.quantization.writing import Writer


def quantize(
    proto: onnx.ModelProto,
    folder: Path,
    task: Task,
    reference: nn.Module,
    rounding: Rounding,
    *,
    precision: Literal["int8", "int4", "mixed"],
    atol: float,
    rtol: float,
    shapes: Task | None = None,
    behind: Callable[[OnnxFile], Forward],
    table: RowTable | None,
    stream: StreamInfo | None = None,
    metric: Callable[[Forward], Metric] | None,
    seed: int,
    bar: Bar,
    by_row: bool = False,
) -> tuple[onnx.ModelProto, Quantization]:
    """The graph with its matrices in fewer bits, a draft in `folder`, and what was measured.

    Args:
        proto: The float graph, known to agree with `reference`; a draft of it in `folder`.
        folder: For temporary files.
        task: Gives calibration data, and the lengths at which the file is checked.
        reference: The PyTorch model.
        rounding: How.
        precision: Of the matrices of products.
        atol: Absolute tolerance of the export.
        rtol: Relative tolerance of the export.
        shapes: Gives the inputs with which files are compared; `task` if it is left out.
        behind: Puts a file behind the call of the model.
        table: Rows of weights that are rounded already; others are rounded to the nearest.
        stream: How the file is run if it is a step file.
        metric: Given the float file: the task's metric, if that decides.
        seed: Of the calibration data and of the examples that are compared.
        bar: Told what is measured.
        by_row: Round what integers multiply by a scale for each position, as the step file does that goes with it.

    Raises:
        ExportError: There is nothing to round, or nothing within the limits, or nothing is saved.
        ParityError: The file is not what it should be at some length.
    """
    npu = rounding.for_npu
    if npu:
        proto = external_data.whole(proto, folder)
        proto = prepare.prepared(proto, "give `batch: 1`; NPUs cannot run a state that grows" if stream else "")
    matrices = find(proto, rounding.keep_float, 1 if npu else SMALLEST)
    _refuse_nothing(matrices)
    weights = Weights(proto, matrices, rounding.block, table, folder)
    data = calibration.calibration(task, rounding.calibration_samples, seed, real=npu)
    writer: Writer = Rewriter(proto, weights, folder, by_row=by_row)
    if npu:
        bar.advance(0, note="calibrate")
        matrices = [*prepare.fit(proto, matrices), *prepare.operators(proto, matrices, rounding.keep_float)]
        how = Calibration(rounding.calibration, rounding.activations, rounding.per_channel)
        same = {name: state.name for state in stream.states for name in (state.name, state.next_name)} if stream else {}
        feeds = calibration.feeds(proto, folder, behind, data.seen)
        writer = NpuWriter(proto, matrices, weights, how, feeds, folder, same)
    _refuse_unused(rounding.keep_float, matrices)
    few = data.of_single_matrices(weights.numbers)
    fold = not calibration.is_large(weights.numbers)
    trials = Trials(writer, folder, lambda path: behind(OnnxFile(path, fold=fold)), data.seen, few)
    if metric is not None:
        trials.metric = metric(trials.forward({}))
    if precision == "mixed":
        ladders = {matrix.name: allocation.forms_of(matrix, weights, rounding.quantize_for) for matrix in matrices}
    else:
        ladders = {matrix.name: ladder(matrix, precision, rounding.quantize_for) for matrix in matrices}
    chosen = choose(trials, matrices, ladders, rounding.max_error, bar)
    if not npu:
        chosen = no_larger(trials, matrices, chosen)
    bar.advance(0, note="compare the rounded file")
    rounded = writer.draft(chosen.forms)
    if not npu:  # what it holds of its matrices is not needed in memory either
        rounded = external_data.draft(rounded, file_of_weights(folder))
    constants = facts.constants(matrices, rounded) if npu else {}
    stored = {} if npu else facts.stored_bytes(matrices, rounded)
    structure = proof.structure(trials, chosen.forms, shapes or task, atol=atol, rtol=rtol, seed=seed)
    for matrix in matrices:  # the largest load comes next
        weights.forget(matrix.name)
    compared = _unseen(task, data) if npu else _examples(shapes or task, seed)
    shipped = trials.as_shipped(rounded, lambda path: behind(OnnxFile(path)))
    deviation = proof.deviation(shipped, reference, compared, rounding.max_error)
    for_cpu = rounding.quantize_for == "cpu"
    return rounded, Quantization(
        precision=precision,
        target=rounding.quantize_for,
        matrices=tuple(
            facts.fact(matrix, chosen, writer, constants, stored, weights, for_cpu=for_cpu) for matrix in matrices
        ),
        method="nearest" if table is None else "second_order",
        samples=sum(samples.size(task, inputs, "batch") for inputs in trials.calibration),
        calibration=rounding.calibration if npu else None,
        activations=rounding.activations if npu else None,
        error=chosen.error,
        max_error=rounding.max_error,
        structure=structure,
        deviation=deviation,
        function=None if trials.metric is None else trials.metric.function,
        metric_drop=chosen.metric_drop,
        metric_drop_allowed=None if trials.metric is None else trials.metric.allowed,
    )


def metric_of(task: Task, allowed: float) -> Callable[[Forward], Metric]:
    """The task's metric as `quantize` takes it, on validation data if the task has some."""
    validation = has_validation_data(task)

    def value(forward: Forward) -> float:
        return accuracy.score(task, forward, validation=validation).value

    def beside(file: Forward) -> Metric:
        base, sign = value(file), 1.0 if task.higher_is_better else -1.0
        function: Literal["validate", "evaluate"] = "validate" if validation else "evaluate"
        return Metric(function, lambda forward: sign * (base - value(forward)), max(0.0, allowed))

    return beside


def _examples(task: Task, seed: int) -> list[tuple[int, int, tuple[Tensor, ...]]]:
    """Batch, length and inputs at every size at which a file is checked."""
    with seeded_everywhere(seed):
        return [(*pair, task.example(*pair)) for pair in parity.points(task)]


def _unseen(task: Task, data: Data) -> list[tuple[int, int, tuple[Tensor, ...]]]:
    """The same of training data: ranges hold for data like the calibration's, and a task's examples may be random."""
    size = samples.size
    return [(size(task, inputs, "batch"), size(task, inputs, "time"), inputs) for inputs in data.unseen]


def _refuse_nothing(matrices: Sequence[Matrix]) -> None:
    if any(not matrix.refused for matrix in matrices):
        return
    reasons = "; ".join(f"`{matrix.name}`: {matrix.refused}" for matrix in matrices[:5])
    raise ExportError(
        f"there is nothing to quantize: {reasons or 'the graph has no weight of two or more axes'}",
        hint="leave `precision` out for this model",
    )


def _refuse_unused(patterns: Sequence[str], matrices: Sequence[Matrix]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(matrix.name, pattern) for matrix in matrices):
            names = ", ".join(f"`{matrix.name}`" for matrix in matrices[:12])
            raise ExportError(f"`keep_float: {pattern}` fits no matrix", hint=f"there are {names}")

r"""Bits of every matrix and table of a graph within one budget, by what they cost the outputs.

The loss of a matrix in b bits is the squared relative error of the outputs with this matrix alone in b bits. It is
measured for 4 and for 8 bits; between and beyond them it follows the error of the matrix itself,

.. math::
    E_b = \mathrm{tr} \, (W - Q_b) (W - Q_b)^T,

of which both are powers to first order. Losses of several matrices add up, as errors that have nothing to do with each
other do. What fits the budget at the least sum is `compressor.nn.budget.allocate`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import ExportError, UsageError
from compressor.nn.budget import Point, allocate
from compressor.runtimes.forward import Fixed
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.surgery.second_order.table import RowTable, fill
from compressor.task.fixed_axes import dynamic
from exporters.quantization.forms import in_float, stored_in
from exporters.quantization.matrices import find
from exporters.quantization.trials import Trials
from exporters.quantization.weights import Weights
from exporters.quantization.writing import Rewriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx
    from torch import Tensor, nn

    from compressor.progress import Bar
    from compressor.task.contract import Task
    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.options import Rounding

BITS = (32, 16, 8, 6, 5, 4, 3, 2)
"""What a weight may have in the file, from the most exact."""
_ANCHORS = (4, 8)
"""Bits of which the error of the outputs is measured."""
_ATTEMPTS = 6
"""Corrections of the budget by what the file holds beside its matrices."""


def table(
    proto: onnx.ModelProto,
    folder: Path,
    task: Task,
    reference: nn.Module,
    rounding: Rounding,
    batches: Sequence[tuple[Tensor, ...]],
    *,
    second_order: bool,
    bar: Bar,
) -> RowTable:
    """How many bits each row of the model's weights gets, and its integers if they are not simply the nearest.

    Args:
        proto: The float graph of whole sequences.
        folder: For temporary files.
        task: Of the model.
        reference: The PyTorch model.
        rounding: How; with a budget.
        batches: Calibration data.
        second_order: Integers by second order.
        bar: Told what is measured.

    Raises:
        ExportError: The budget cannot be met.
    """
    matrices = [matrix for matrix in find(proto, rounding.keep_float) if not matrix.refused]

    def told(name: str) -> None:
        bar.advance(0, note=f"round {name}")

    tried = None
    if second_order:
        tried = fill(reference, batches, bits=lambda *_: _ANCHORS, block=rounding.block, told=told)
    weights = Weights(proto, matrices, rounding.block, tried)
    trials = Trials(Rewriter(proto, weights), folder, lambda path: Fixed(OnnxFile(path), dynamic(task)), batches)
    losses = {}
    for matrix in matrices:
        bar.advance(0, note=f"measure {matrix.name}")
        losses[matrix.name] = losses_by_bits(
            {bits: trials.error(trials.forward({matrix.name: stored_in("weights", bits)})) for bits in _ANCHORS},
            _own_errors(weights, matrix.name),
        )
    chosen = _within(rounding, matrices, weights, trials, losses)
    result = RowTable()
    for matrix in matrices:
        result.assign(weights.as_rows(matrix.name), chosen[matrix.name])
    if second_order:
        fill(
            reference,
            batches,
            bits=lambda rows, _: (result.assigned(rows) or 8,),
            block=rounding.block,
            table=result,
            told=told,
        )
    return result


def forms_of(matrix: Matrix, weights: Weights, target: str) -> tuple[Form, ...]:
    """The forms of a matrix with the bits that its rows were given: products of integers if they pay, or of floats."""
    if matrix.refused:
        return ("float",)
    bits = weights.assigned(matrix.name)
    first = _form(matrix, bits, target)
    return tuple(dict.fromkeys((first, in_float(first))))


def losses_by_bits(measured: Mapping[int, float], own: Mapping[int, float]) -> dict[int, float]:
    """Bits -> loss, never rising with the bits.

    Args:
        measured: Relative error of the outputs in 4 and in 8 bits.
        own: Bits -> squared error of the matrix itself.
    """
    low, high = ((own[bits], measured[bits] ** 2) for bits in _ANCHORS)
    power = 1.0
    if min(*low, *high) > 0 and low[0] > high[0]:
        power = max(0.0, math.log(low[1] / high[1]) / math.log(low[0] / high[0]))
    losses: dict[int, float] = {}
    for bits in sorted(own, reverse=True):
        if 4 < bits < 8:
            loss = high[1] * (own[bits] / high[0]) ** power if high[0] else 0.0
        else:
            known = low if bits <= 4 else high
            loss = known[1] * own[bits] / known[0] if known[0] else 0.0
        losses[bits] = max(loss, *losses.values(), 0.0) if losses else loss
    return losses


def _form(matrix: Matrix, bits: int, target: str) -> Form:
    in_integers = target == "cpu" and matrix.is_product and not matrix.slower_as_integers
    return stored_in("integer" if in_integers else "weights", bits)


def _own_errors(weights: Weights, name: str) -> dict[int, float]:
    array = weights.arrays[name].astype(np.float64)
    return {bits: float(((weights.restored(name, stored_in("weights", bits)) - array) ** 2).sum()) for bits in BITS}


def _within(
    rounding: Rounding,
    matrices: Sequence[Matrix],
    weights: Weights,
    trials: Trials,
    losses: Mapping[str, Mapping[int, float]],
) -> dict[str, int]:
    """Bits of each matrix."""
    forms = {matrix.name: [_form(matrix, bits, rounding.quantize_for) for bits in BITS] for matrix in matrices}
    points = {
        name: [
            Point(weights.stored_bytes(name, form), losses[name][bits])
            for bits, form in zip(BITS, forms[name], strict=True)
        ]
        for name in forms
    }

    def chosen(budget: int) -> dict[str, int]:
        try:
            return allocate(points, budget)
        except UsageError as error:
            raise ExportError(f"the bits of `rounding` cannot be so few: {error.message}", hint=error.hint) from None

    if rounding.file_bytes is None:
        assert rounding.bits is not None
        numbers = sum(weights.arrays[name].size for name in forms)
        places = chosen(int(rounding.bits * numbers / 8))
        return {name: BITS[place] for name, place in places.items()}
    beside = 0
    for _ in range(_ATTEMPTS):
        places = chosen(rounding.file_bytes - beside)
        size = int(trials.writer.write({name: forms[name][place] for name, place in places.items()}).ByteSize())
        if size <= rounding.file_bytes:
            return {name: BITS[place] for name, place in places.items()}
        beside = max(beside + 1, size - sum(points[name][place].cost for name, place in places.items()))
    raise ExportError(
        f"no choice of bits was found whose file has at most {rounding.file_bytes:,} bytes; the last had {size:,}",
        hint="raise `file_bytes`, or remove units",
    )

r"""Bits of every matrix and table of a graph within one budget, by what they cost the outputs.

The loss of a matrix in b bits is the squared relative error of the outputs with this matrix alone in b bits. It is
measured for 4 and for 8 bits; between and beyond them it follows the error of the matrix itself,

.. math::
    E_b = \mathrm{tr} \, (W - Q_b) (W - Q_b)^T,

of which both are powers to first order. Losses of several matrices add up, as errors that have nothing to do with each
other do. What fits the budget at the least sum is `compressor.nn.budget.allocate`.

A matrix that is integers times scales already, as training with rounding leaves it, keeps the bits of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError, UsageError
from compressor.nn.bit_losses import ANCHORS, BITS, losses_by_bits
from compressor.nn.budget import Point, allocate
from compressor.nn.integers import pieces
from compressor.runtimes.forward import Fixed
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.surgery.second_order.bits import stored_bytes
from compressor.surgery.second_order.table import RowTable, fill
from compressor.task.fixed_axes import dynamic
from exporters.quantization.calibration import is_large
from exporters.quantization.forms import in_float, stored_in
from exporters.quantization.matrices import find
from exporters.quantization.trials import Trials
from exporters.quantization.weights import Weights
from exporters.quantization.writing import Rewriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray
    from torch import nn

    from compressor.progress import Bar
    from compressor.task.contract import Task
    from exporters.quantization.calibration import Data
    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.options import Rounding

    Measured = tuple[RowTable | None, dict[str, int], dict[str, dict[int, float]]]
    """Rows in the bits that are measured, bits of the matrices that have them already, what others lose by theirs."""

_ATTEMPTS = 6
"""Corrections of the budget by what the file holds beside its matrices."""


def table(
    proto: onnx.ModelProto,
    folder: Path,
    task: Task,
    reference: nn.Module,
    rounding: Rounding,
    data: Data,
    *,
    second_order: bool,
    bar: Bar,
    once: Callable[[Callable[[], Measured]], Measured],
) -> RowTable:
    """How many bits each row of the model's weights gets, and its integers if they are not simply the nearest.

    Args:
        proto: The float graph of whole sequences.
        folder: For temporary files.
        task: Of the model.
        reference: The PyTorch model.
        rounding: How; with a budget.
        data: For the calibration.
        second_order: Integers by second order.
        bar: Told what is measured.
        once: For what other budgets of the same graph need too.

    Raises:
        ExportError: The budget cannot be met.
    """
    matrices = [matrix for matrix in find(proto, rounding.keep_float) if not matrix.refused]

    def weights_of(rows: RowTable | None) -> Weights:
        return Weights(proto, matrices, rounding.block, rows, folder)

    def told(name: str) -> None:
        bar.advance(0, note=f"round {name}")

    def trials_of(weights: Weights) -> Trials:
        return Trials(
            Rewriter(proto, weights, folder),
            folder,
            lambda path: Fixed(OnnxFile(path, fold=not is_large(weights.numbers)), dynamic(task)),
            data.seen,
            data.of_single_matrices(weights.numbers),
        )

    def measured() -> Measured:
        tried = None
        if second_order:
            tried = fill(reference, data.seen, bits=lambda *_: ANCHORS, block=rounding.block, told=told)
        weights = weights_of(tried)
        trials, given, losses = trials_of(weights), {}, {}
        for matrix in matrices:
            name = matrix.name
            at_hand, own = _alone(weights, name)
            if at_hand is not None:
                given[name] = at_hand
            else:
                bar.advance(0, note=f"measure {name}")
                alone = {
                    bits: trials.error_alone(trials.forward({name: stored_in("weights", bits)})) for bits in ANCHORS
                }
                losses[name] = losses_by_bits(alone, own)
            weights.forget(name)
        return tried, given, losses

    tried, given, losses = once(measured)
    weights = weights_of(tried)
    chosen = _within(rounding, matrices, weights, trials_of(weights), losses, given)
    result = RowTable()
    for matrix in matrices:
        result.assign(weights.as_rows(matrix.name), chosen[matrix.name])
    del tried, weights
    if second_order:
        fill(
            reference,
            data.seen,
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


def _form(matrix: Matrix, bits: int, target: str) -> Form:
    in_integers = target == "cpu" and matrix.is_product and not matrix.slower_as_integers
    return stored_in("integer" if in_integers else "weights", bits)


def _alone(weights: Weights, name: str) -> tuple[int | None, dict[int, float]]:
    """What is known of a matrix without its model.

    Returns:
        The fewest bits in which it is rounded already, so that rounding does not change it; None if it is not. And then
        bits -> squared error of the matrix.
    """
    exact = weights.arrays[name]
    exact, errors = exact.reshape(len(exact), -1), {}
    for bits in reversed(BITS):
        rounded = weights.restored(name, stored_in("weights", bits)).reshape(exact.shape)
        if bits <= 8 and np.array_equal(rounded, exact):
            return bits, {}
        errors[bits] = _squared(rounded, exact)
        if bits not in ANCHORS:  # in all bits together a table takes more than in float
            weights.forget(name, bits)
    return None, errors


def _squared(rounded: NDArray[Any], exact: NDArray[Any]) -> float:
    errors = ((rounded[place] - exact[place]).astype(np.float64).ravel() for place in pieces(*exact.shape))
    return sum(float(error @ error) for error in errors)


def _within(
    rounding: Rounding,
    matrices: Sequence[Matrix],
    weights: Weights,
    trials: Trials,
    losses: Mapping[str, Mapping[int, float]],
    given: Mapping[str, int],
) -> dict[str, int]:
    """Bits of each matrix."""
    options = {matrix.name: (given[matrix.name],) if matrix.name in given else BITS for matrix in matrices}
    forms = {
        matrix.name: [_form(matrix, bits, rounding.quantize_for) for bits in options[matrix.name]]
        for matrix in matrices
    }
    points = {}
    for name, wanted in forms.items():
        if name in given:
            # As training counts it: a form of the file may hold larger scales, and that average would be refused.
            points[name] = [Point(stored_bytes(weights.as_rows(name).shape, given[name], rounding.block), 0.0)]
        else:
            pairs = zip(options[name], wanted, strict=True)
            points[name] = [Point(weights.stored_bytes(name, form), losses[name][bits]) for bits, form in pairs]
        weights.forget(name)

    def chosen(budget: int) -> dict[str, int]:
        try:
            return allocate(points, budget)
        except UsageError as error:
            why = f"the bits of `rounding` cannot be so few: {error.message}"
            if given:
                why += f"; {len(given)} matrices were rounded before the export and keep their bits"
            raise ExportError(why, hint=error.hint) from None

    if rounding.file_bytes is None:
        assert rounding.bits is not None
        places = chosen(int(rounding.bits * weights.numbers / 8))
        return {name: options[name][place] for name, place in places.items()}
    beside = 0
    for _ in range(_ATTEMPTS):
        places = chosen(rounding.file_bytes - beside)
        size = trials.bytes({name: forms[name][place] for name, place in places.items()})
        if size <= rounding.file_bytes:
            return {name: options[name][place] for name, place in places.items()}
        beside = max(beside + 1, size - sum(points[name][place].cost for name, place in places.items()))
    raise ExportError(
        f"no choice of bits was found whose file has at most {rounding.file_bytes:,} bytes; the last had {size:,}",
        hint="raise `file_bytes`, or remove units",
    )

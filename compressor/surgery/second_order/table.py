"""Rounded rows of a model's matrices, found again in any graph that has these rows, whatever their order there.

A graph holds a matrix transposed, with its gates in another order, or both directions of a layer in one; but an output
of a product is still the same row of weights. So the whole-sequence file, the step file and every form of them hold the
same integers.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
import weakref
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.files import writing
from compressor.nn.integers import Rows
from compressor.runtimes.freed_memory import give_back
from compressor.surgery.second_order.observe import Observed, Operand
from compressor.surgery.second_order.solver import second_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from compressor.nn.integers import Floats
    from compressor.surgery.second_order.solver import Doubles

_PASSES = 16
"""Most runs through the calibration data: matrices used one after the other share one if there are more."""
_LARGEST = 4096
"""Inputs of a product up to which its second moment, of the square of them, is worth its memory."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the rows of a matrix lie in the file of a table: integers, and the scales behind them."""

    offset: int
    shape: tuple[int, int]
    groups: int
    block: int


class RowTable:
    """Row of float weights -> its integers and scales, in 8 and in fewer bits.

    These lie in a temporary file, and those of one matrix are in memory at a time: of all bits that are tried they
    would be half of the model.
    """

    def __init__(self) -> None:
        """Without rows."""
        self._known: dict[tuple[int, bytes], tuple[_Place, int]] = {}
        self._bits: dict[bytes, int] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the table
        self._read: tuple[_Place, Rows] | None = None
        weakref.finalize(self, self._file.close)

    def add(self, weight: Floats, rows: Rows, bits: int) -> None:
        """Take in the rows of a matrix (N, K); raises `OutputError` if the temporary folder is full."""
        with writing(Path(tempfile.gettempdir())):
            place = _Place(self._file.seek(0, os.SEEK_END), rows.values.shape, rows.scale.shape[1], rows.block)
            self._file.write(np.ascontiguousarray(rows.values, np.int8).tobytes())
            self._file.write(np.ascontiguousarray(rows.scale, np.float32).tobytes())
            self._file.flush()
        for index, row in enumerate(weight):
            self._known.setdefault((bits, _key(row)), (place, index))

    def find(self, row: NDArray[Any], bits: int) -> tuple[NDArray[np.int8], Floats] | None:
        """The integers (K,) and scales (groups,) of a row (K,)."""
        found = self._known.get((bits, _key(row)))
        if found is None:
            return None
        rows = self._rows(found[0])
        return rows.values[found[1]], rows.scale[found[1]]

    def _rows(self, place: _Place) -> Rows:
        """The rows of a matrix, read unless they were asked for last."""
        if self._read is None or self._read[0] is not place:
            count, columns = place.shape
            self._file.seek(place.offset)
            values = np.frombuffer(self._file.read(count * columns), np.int8).reshape(place.shape)
            scale = np.frombuffer(self._file.read(count * place.groups * 4), np.float32).reshape(count, -1)
            self._read = place, Rows(values, scale, place.block)
        return self._read[1]

    def assign(self, weight: Floats, bits: int) -> None:
        """Note how many bits each row of a matrix (N, K) gets; of equal rows the most."""
        for row in weight:
            key = _key(row)
            self._bits[key] = max(bits, self._bits.get(key, 0))

    def assigned(self, weight: Floats) -> int | None:
        """The most bits that a row of a matrix (N, K) was to get; None if nothing was noted of them."""
        return max((self._bits[key] for row in weight if (key := _key(row)) in self._bits), default=None)


def _key(row: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row, np.float32).tobytes(), digest_size=16).digest()


def fill(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, ...]],
    *,
    bits: Callable[[Floats, bool], Sequence[int]],
    block: int,
    table: RowTable | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> RowTable:
    """Round every matrix of a model by the second moments of its inputs.

    Args:
        model: In evaluation mode; it is not changed.
        batches: Its inputs, at least one.
        bits: Given rows (N, K), and whether they are those of a matrix: the numbers of bits to which they are rounded,
            16 or more to leave them exact. Matrices behind see the last one.
        block: Weights of a row with a common scale in fewer than 8 bits.
        table: Gets the rows; a new one if it is left out.
        told: Called with the name of each matrix that is about to be rounded.
    """
    table = RowTable() if table is None else table

    def rounded(operand: Operand, weight: Floats, moment: Doubles) -> Rows | None:
        told(operand.parameter)
        rows = None
        for count in bits(weight, model.get_parameter(operand.parameter).dim() == 2):
            rows = None
            if count <= 8:
                rows = second_order(weight, moment, count, weight.shape[1] if count == 8 else block)
                table.add(weight, rows, count)
        return rows

    one_by_one(model, batches, rounded)
    return table


def one_by_one(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, ...]],
    rounded: Callable[[Operand, Floats, Doubles], Rows | None],
) -> nn.Module:
    """A copy of a model with its matrices rounded, in the order in which the model uses them.

    All other parameters are those of the model itself.

    Each is rounded on what the matrices before it, rounded already, make of the batches (GPTQ, arXiv 2210.17323,
    section 4).

    Args:
        model: In evaluation mode; it is not changed.
        batches: Its inputs, at least one.
        rounded: Given which rows these are, the exact ones (N, K) and the second moment (K, K) of their inputs; None
            leaves them as they are. Not asked about rows with inputs that are not finite.
    """
    order = [
        operand
        for operand in Observed(model).order(batches[0])
        if _is_worth_it(operand.of(model.get_parameter(operand.parameter)))
    ]
    changed = {operand.parameter for operand in order}
    same = {id(parameter): parameter for name, parameter in model.named_parameters() if name not in changed}
    copied = copy.deepcopy(model, same)  # tables, half of a small Transformer, are in memory once
    observed = Observed(copied)
    for stage in _stages(order):
        moments = observed.moments(batches, set(stage))
        for operand in stage:
            weight = operand.of(model.get_parameter(operand.parameter)).detach().numpy()
            moment = moments.pop(operand).second_moment(centred=False).numpy()
            if not np.isfinite(moment).all():  # such as the logarithm of a 0 among the inputs
                continue
            rows = rounded(operand, weight, moment)
            if rows is None:
                continue
            with torch.no_grad():
                operand.of(copied.get_parameter(operand.parameter)).copy_(torch.from_numpy(rows.weight))
        give_back()
    return copied


def _is_worth_it(rows: Tensor) -> bool:
    return rows.dtype == torch.float32 and rows.shape[1] <= _LARGEST and rows.numel() > 0


def _stages(order: Sequence[Operand]) -> list[list[Operand]]:
    """Operands in their order, those of one stage next to each other, in `_PASSES` stages at most."""
    bounds = np.linspace(0, len(order), min(_PASSES, len(order)) + 1).round().astype(int)
    return [list(order[start:stop]) for start, stop in pairwise(bounds) if stop > start]

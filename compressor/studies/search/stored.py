"""What a file holds of a model that was not written: the bits of each matrix, and the bytes of all weights.

With `precision: mixed` a point gives the bits of a weight on average, and which matrix gets how many is decided as the
exporter does it: each matrix costs the outputs what its squared error times its importance is, and
`compressor.nn.budget.allocate` shares the bits out. The importance is measured once, on the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from compressor.errors import MethodError, UsageError
from compressor.nn.budget import Point, allocate
from compressor.nn.integers import BLOCK, block_of, rows_to_nearest
from compressor.nn.weight_matrices import weight_matrices
from compressor.training.distillation import first_tensor
from compressor.training.rounding import rounded_to_bits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.nn.weight_matrices import WeightMatrix

ROUNDED: Final = ("int8", "int4", "mixed")
"""Precisions in which matrices have other bits than the rest."""
FEW: Final = ("int4", "mixed")
"""Those of fewer than 8 bits on average."""
_BITS: Final = (32, 16, 8, 6, 5, 4, 3, 2)
"""What `precision: mixed` may give a matrix, from the most exact."""
_PROBED: Final = 4
"""Bits at which the importance of a matrix is measured."""
MIDDLE: Final = 4.5
"""Bits on average of `mixed` if none are known: of a budget in bytes, which only the exporter can share out."""
_SCALE: Final = 2
"""Bytes of a scale."""
_MOST_INTEGER: Final = 8
"""More bits are those of a float."""
_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_SMALLEST: Final = 256
"""Numbers below which the exporter leaves a matrix in float."""


@dataclass(frozen=True)
class Precision:
    """What the weights of a point are stored in."""

    word: str | None
    """`precision` of the export; None if the format has its own."""
    bits: float | None = None
    """Of a weight on average, if the word is `mixed`; None if the export has a budget in bytes instead."""

    @property
    def described(self) -> str | None:
        """For a reader."""
        return self.word if self.bits is None else f"{self.word}, {self.bits:g} bits"


def bits_of_weight(precision: Precision) -> float:
    """Bits of a weight of a large matrix, about, scales included."""
    if precision.word == "mixed":
        return MIDDLE if precision.bits is None else precision.bits
    return {"float16": 16.0, "int8": 8.0, "int4": 4.0 + 8.0 * _SCALE / BLOCK}.get(str(precision.word), 32.0)


@dataclass(frozen=True)
class Matrix:
    """A matrix as the file holds it."""

    parameter: nn.Parameter
    bits: int
    is_rounded: bool = False
    """Its weights are integers times scales already."""


def stored_forms(
    model: nn.Module, precision: Precision, importance: Mapping[str, float], at_hand: Mapping[str, int] = _NONE
) -> dict[str, Matrix]:
    """Matrices that a file holds in other bits than the rest: name -> the parameter and its bits.

    Args:
        model: With its weights.
        precision: Of the file.
        importance: Of matrices, from `importances`; used for `mixed`. An unknown matrix counts as the middle one.
        at_hand: Bits of matrices that training has rounded, from `bits_at_hand`: the file keeps them as they are.

    Raises:
        MethodError: The average is less than the fewest bits of all matrices.
    """
    if precision.word not in ROUNDED:
        return {}
    found = _matrices(model)
    if precision.word == "mixed":
        average = MIDDLE if precision.bits is None else precision.bits
        return _shared_out({name: one.parameter for name, one in found.items()}, average, importance, at_hand)
    usual = {name: 4 if precision.word == "int4" and one.use == "product" else 8 for name, one in found.items()}
    return {
        name: Matrix(one.parameter, usual[name], at_hand.get(name, _BITS[0]) <= usual[name])
        for name, one in found.items()
    }


def bits_at_hand(model: nn.Module) -> dict[str, int]:
    """The fewest bits in which matrices are integers times scales already, as training in few bits leaves them."""
    known = {}
    for name, one in _matrices(model).items():
        rows = one.parameter.detach().flatten(1).cpu().numpy()
        for bits in reversed([bits for bits in _BITS if bits <= _MOST_INTEGER]):
            if np.array_equal(rows_to_nearest(rows, bits, block_of(bits, rows.shape[1])).weight, rows):
                known[name] = bits
                break
    return known


def fewest_forms(model: nn.Module, word: str | None) -> dict[str, Matrix]:
    """The same with as few bits as the precision can give."""
    if word == "mixed":
        return {name: Matrix(one.parameter, _BITS[-1]) for name, one in _matrices(model).items()}
    return stored_forms(model, Precision(word), {})


def _matrices(model: nn.Module) -> dict[str, WeightMatrix]:
    """Every weight that the exporter rounds."""
    return {name: one for name, one in weight_matrices(model).items() if one.parameter.numel() >= _SMALLEST}


@torch.no_grad()
def round_in_place(forms: Mapping[str, Matrix]) -> None:
    """Round the weights of a model to what a file would hold, each to the nearest."""
    for matrix in (one for one in forms.values() if not one.is_rounded):
        matrix.parameter.copy_(_rounded(matrix.parameter, matrix.bits))


def weight_bytes(model: nn.Module, forms: Mapping[str, Matrix], word: str | None) -> int:
    """Bytes of a model's weights in a file; whatever is not in `forms` is float32, or float16 if that is the word."""
    known = {id(matrix.parameter): matrix.bits for matrix in forms.values()}
    rest = 16 if word == "float16" else 32
    total = 0
    for parameter in model.parameters():
        bits = known.get(id(parameter))
        total += parameter.numel() * rest // 8 if bits is None else matrix_bytes(parameter, bits)
    return total


def matrix_bytes(parameter: Tensor, bits: int) -> int:
    """Bytes of a matrix with its scales: one a row in 8 bits, one for every `BLOCK` weights of a row in fewer."""
    if bits > _MOST_INTEGER:
        return parameter.numel() * bits // 8
    rows = parameter.shape[0]
    width = parameter.numel() // rows
    scales = rows * -(-width // block_of(bits, width))
    return -(-parameter.numel() * bits // 8) + _SCALE * scales


@torch.no_grad()
def importances(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, float]:
    r"""How much the squared error of each matrix alone moves the outputs, :math:`\|y_4 - y\|^2 / \|y\|^2 / E_4`.

    Args:
        model: The original, in evaluation mode; its weights are changed for a moment.
        inputs: Of one call.

    Returns:
        Name of a matrix -> squared relative error of the outputs for each unit of :math:`E = \|W - Q(W)\|^2`.
    """
    exact = first_tensor(model(*inputs))
    if exact is None:
        return {}
    size = float(exact.float().square().sum())
    found = {}
    for name, one in _matrices(model).items():
        parameter = one.parameter
        before = parameter.detach().clone()
        error = _error(before, _PROBED)
        try:
            parameter.copy_(_rounded(before, _PROBED))
            moved = first_tensor(model(*inputs))
        finally:
            parameter.copy_(before)
        assert moved is not None
        change = float((moved.float() - exact.float()).square().sum())
        found[name] = change / max(size, 1e-30) / error if error > 0.0 else 0.0
    return found


def _shared_out(
    parameters: Mapping[str, nn.Parameter],
    average: float,
    importance: Mapping[str, float],
    at_hand: Mapping[str, int],
) -> dict[str, Matrix]:
    """Bits of each matrix within the average of all their numbers, scales included."""
    known = sorted(importance.values())
    middle = known[len(known) // 2] if known else 1.0
    choices = {name: (at_hand[name],) if name in at_hand else _BITS for name in parameters}
    points = {
        name: [
            Point(matrix_bytes(parameter, bits), importance.get(name, middle) * _error(parameter.detach(), bits))
            for bits in choices[name]
        ]
        for name, parameter in parameters.items()
    }
    numbers = sum(parameter.numel() for parameter in parameters.values())
    try:
        chosen = allocate(points, int(average * numbers / 8))
    except UsageError as error:
        raise MethodError(
            f"matrices this small cannot have {average:g} bits on average, scales included: {error.message}"
        ) from error
    return {name: Matrix(parameters[name], choices[name][place], name in at_hand) for name, place in chosen.items()}


def _error(weight: Tensor, bits: int) -> float:
    return float((weight - _rounded(weight, bits)).square().sum())


def _rounded(weight: Tensor, bits: int) -> Tensor:
    if bits == 32:
        return weight
    if bits == 16:
        return weight.half().to(weight.dtype)
    rows = weight.flatten(1)
    return rounded_to_bits(rows, bits, block_of(bits, rows.shape[1])).view_as(weight)

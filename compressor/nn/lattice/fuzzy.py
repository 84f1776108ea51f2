"""The continuous counterpart: relations with degrees in 0..1, "and" as minimum, "or" as maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.nn.lattice.bits import Bits, transitive_closure
from compressor.nn.lattice.order import equivalence_classes
from compressor.nn.lattice.tiles import row_slices

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIVOTS = 64


@dataclass(frozen=True, eq=False)
class FuzzyOrder:
    """Which of n columns are equal, and which are not the minimum of others."""

    classes: Tensor
    """The class (n,) of each column, 0..k-1, numbered by their first column."""
    irreducible: Tensor
    """Which classes (k,) hold a column that is irreducible."""


def max_min_closure(degrees: Tensor) -> Tensor:
    r"""The least reflexive and max-min transitive relation above this one.

    .. math:: C_{ij} = \max_{\text{paths } i \dots j} \; \min_{(k, l) \text{ on the path}} A_{kl}, \qquad C_{ii} = 1

    so that {C >= t} is the transitive closure of {A >= t} for every t in (0, 1] (Zadeh, Similarity relations and
    fuzzy orderings, 1971). Warshall's algorithm in blocks of pivots; the values are only compared, never computed
    with, so the result is exact.

    Args:
        degrees: A (n, n) in 0..1; rounded to float32.

    Returns:
        C (n, n), float32.

    Raises:
        UsageError: not square, or a degree outside 0..1.
    """
    if degrees.dim() != 2 or degrees.size(0) != degrees.size(1):
        raise UsageError(f"degrees of the shape {tuple(degrees.shape)} have no closure", hint="pass a square matrix")
    _require_degrees(degrees)
    closed = degrees.to(torch.float32, copy=True).fill_diagonal_(1.0)
    size = len(closed)
    tiles = row_slices(size, size, closed.device)
    for first in range(0, size, _PIVOTS):
        pivots = closed[first : first + _PIVOTS]  # (p, n)
        towards = closed[:, first : first + _PIVOTS, None]  # (n, p, 1)
        _take_paths(pivots, towards[first : first + _PIVOTS].unbind(1), pivots)
        for rows in tiles:
            _take_paths(closed[rows], towards[rows].unbind(1), pivots)
    return closed


def fuzzy_order(degrees: Tensor, tolerance: float = 0.0) -> FuzzyOrder:
    r"""Which columns are minima of the columns above them.

    Column y dominates column j if :math:`A_{iy} \ge A_{ij} - \varepsilon` for every i and the two are not equal
    within :math:`\varepsilon`. Column j is reducible if it equals, within :math:`\varepsilon`, the elementwise
    minimum of all the columns that dominate it; that of none is 1, so a column of ones is reducible. Columns that are
    equal within :math:`\varepsilon`, or joined by a chain of such ones, form a class.

    In a max-min closure column y is above column j only if :math:`C_{jy} \ge 1 - \varepsilon`, because
    :math:`C_{jj} = 1`: without a tolerance nearly every column of a trained layer's closure is irreducible.

    Args:
        degrees: A (m, n) in 0..1; rounded to float32.
        tolerance: :math:`\varepsilon`, 0..1.

    Raises:
        UsageError: a degree or the tolerance outside 0..1.
    """
    _require_degrees(degrees)
    if not 0 <= tolerance <= 1:
        raise UsageError(f"a tolerance of {tolerance} says nothing about degrees", hint="choose one in 0..1")
    columns = degrees.float().T.contiguous()  # (n, m)
    below = _dominators(columns, tolerance)  # (n, n)
    equal = below & below.T
    meets = torch.ones_like(columns)  # (n, m)
    dominated = below & ~equal
    for j in dominated.any(1).nonzero().flatten().tolist():
        meets[j] = columns[dominated[j]].amin(0)
    irreducible = (meets - columns).abs().amax(1) > tolerance  # (n,)
    classes, first = equivalence_classes(transitive_closure(Bits.pack(equal)))
    flags = torch.zeros_like(first, dtype=torch.bool)
    flags[classes[irreducible]] = True
    return FuzzyOrder(classes, flags)


def _dominators(columns: Tensor, tolerance: float) -> Tensor:
    """Where row j of `columns` (n, m) is at most row y everywhere, within the tolerance: (n, n), entry [j, y].

    Only those y are compared in full that are high enough where row j is highest, few unless most rows are similar.
    """
    highest, where = columns.max(1)  # (n,)
    below = highest[:, None] - columns[:, where].T <= tolerance  # (n, n)
    for j, row in enumerate(columns):
        candidates = below[j].nonzero().flatten()
        for part in row_slices(len(candidates), len(row), columns.device):
            below[j, candidates[part]] = (row - columns[candidates[part]]).amax(1) <= tolerance
    return below


def _take_paths(tile: Tensor, given: Iterable[Tensor], pivots: Tensor) -> None:
    """Raise the rows of a tile (r, n), in place, to what they reach through each pivot: p times (r, 1), and (p, n)."""
    work = torch.empty_like(tile)
    for degree, pivot in zip(given, pivots, strict=True):
        torch.minimum(degree, pivot, out=work)
        torch.maximum(tile, work, out=tile)


def _require_degrees(degrees: Tensor) -> None:
    """Refuse what is not in 0..1, NaN included."""
    if not bool(((degrees >= 0) & (degrees <= 1)).all()):
        raise UsageError("degrees lie in 0..1", hint="divide the strengths by the largest of them")

"""Linear regression from running sums: memory grows with the square of the number of inputs, not with the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """r is about W z + c."""

    weights: Tensor
    """W (m, n), float64; 0 where it had to be."""
    constant: Tensor
    """c (m,); 0 where there is none."""
    error_before: float
    """Sum over samples and outputs of r^2, its mean taken out where there is a constant."""
    error_after: float
    """The same of r - W z - c."""


class Moments:
    """Sums over samples of z z^T, z r^T, z, r and r^2, for inputs z (n,) and outputs r (m,), in float64."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        """No samples yet."""
        options: Any = {"dtype": torch.float64, "device": device}
        self.samples = 0
        self._inner = torch.zeros(inputs, inputs, **options)
        self._cross = torch.zeros(inputs, outputs, **options)
        self._inputs = torch.zeros(inputs, **options)
        self._outputs = torch.zeros(outputs, **options)
        self._squares = torch.zeros(outputs, **options)

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Take samples (N, n) and (N, m) in, both float64."""
        self.samples += len(inputs)
        self._inner.addmm_(inputs.T, inputs)
        self._cross.addmm_(inputs.T, outputs)
        self._inputs += inputs.sum(0)
        self._outputs += outputs.sum(0)
        self._squares += outputs.square().sum(0)

    def solve(
        self,
        columns: Tensor,
        rows: slice,
        *,
        ridge: float,
        constant: bool,
        allowed: Tensor | None = None,
    ) -> Solution:
        r"""The ridge regression of the outputs `rows` on the inputs `columns`.

        .. math::
            \min_{W, c} \frac{1}{N} \sum_t |r_t - W z_t - c|^2 + \rho \, \frac{\mathrm{tr}\, C}{n} \, |W|^2

        with C the covariance of z (its second moment without a constant), so
        :math:`W = D^T (C + \rho \, \mathrm{tr}(C) / n \, I)^{-1}` with D the covariance of z and r, and
        :math:`c = \bar r - W \bar z`.

        Args:
            columns: Indices (n',) of inputs.
            rows: Which outputs, m' of them.
            ridge: :math:`\rho > 0`.
            constant: c may differ from 0.
            allowed: (m', n'), False where W has to be 0; each row is regressed on its own inputs then.
        """
        count = max(self.samples, 1)
        covariance = self._inner[columns][:, columns] / count
        cross = self._cross[columns, rows] / count
        squares = self._squares[rows] / count
        mean_in, mean_out = self._inputs[columns] / count, self._outputs[rows] / count
        if constant:
            covariance = covariance - torch.outer(mean_in, mean_in)
            cross = cross - torch.outer(mean_in, mean_out)
            squares = squares - mean_out.square()
        shrinkage = ridge * covariance.diagonal().mean()
        regular = covariance + shrinkage * torch.eye(len(columns), dtype=cross.dtype, device=cross.device)
        weights = _solve(regular, cross) if allowed is None else _solve_by_pattern(regular, cross, allowed)
        offset = mean_out - weights @ mean_in if constant else torch.zeros_like(mean_out)
        after = squares.sum() - 2 * (weights * cross.T).sum() + ((weights @ covariance) * weights).sum()
        return Solution(weights, offset, count * float(squares.sum()), count * float(after.clamp(min=0.0)))


def pattern_cost(allowed: Tensor) -> float:
    """Multiplications that `Moments.solve` takes for these patterns, n^3 / 3 for each different row."""
    patterns = allowed.unique(dim=0)
    return float((patterns.sum(1).double() ** 3 / 3.0).sum())


def _solve_by_pattern(matrix: Tensor, cross: Tensor, allowed: Tensor) -> Tensor:
    weights = torch.zeros(allowed.shape, dtype=matrix.dtype, device=matrix.device)
    patterns, which = allowed.unique(dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        rows, columns = (which == index).nonzero().flatten(), pattern.nonzero().flatten()
        if len(columns):
            part = _solve(matrix[columns][:, columns], cross[columns][:, rows])
            weights[rows[:, None], columns] = part
    return weights


def _solve(matrix: Tensor, cross: Tensor) -> Tensor:
    """(matrix^-1 cross)^T for a symmetric positive matrix; the pseudo-inverse where it is not quite positive."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        return torch.cholesky_solve(cross, factor).T
    values, vectors = torch.linalg.eigh(matrix)
    usable = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    inverse = torch.where(usable, 1.0 / values.where(usable, torch.ones_like(values)), torch.zeros_like(values))
    solved: Tensor = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return solved.T

"""Linear regression from running sums: memory grows with the square of the number of inputs, not with the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Those that `choose_ridge` tries unless told otherwise."""


@dataclass(frozen=True)
class Problem:
    """Which outputs are regressed on which inputs."""

    columns: Tensor
    """Indices (n',) of inputs."""
    rows: slice
    """m' outputs."""
    constant: bool
    """c may differ from 0."""
    allowed: Tensor | None = None
    """(m', n'), False where W has to be 0; each row is regressed on its own inputs then."""


@dataclass(frozen=True)
class Solution:
    """r is about W z + c."""

    weights: Tensor
    """W (m', n'), float64."""
    constant: Tensor
    """c (m',)."""


class Moments:
    """Sums over samples of z z^T, z r^T, z, r and r^2, for inputs z (n,) and outputs r (m,), in float64."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        """No samples yet."""
        self.samples = 0
        self._inner = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
        self._cross = torch.zeros(inputs, outputs, dtype=torch.float64, device=device)
        self._inputs = torch.zeros(inputs, dtype=torch.float64, device=device)
        self._outputs = torch.zeros(outputs, dtype=torch.float64, device=device)
        self._squares = torch.zeros(outputs, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Take samples (N, n) and (N, m) in, both float64."""
        self.samples += len(inputs)
        self._inner.addmm_(inputs.T, inputs)
        self._cross.addmm_(inputs.T, outputs)
        self._inputs += inputs.sum(0)
        self._outputs += outputs.sum(0)
        self._squares += outputs.square().sum(0)

    def __add__(self, other: Moments) -> Moments:
        """The sums over the samples of both."""
        total = Moments(self._cross.size(0), self._cross.size(1), self._cross.device)
        total.samples = self.samples + other.samples
        for name in ("_inner", "_cross", "_inputs", "_outputs", "_squares"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    @property
    def mean(self) -> Tensor:
        """Of z (n,)."""
        return self._inputs / max(self.samples, 1)

    def second_moment(self, *, centred: bool) -> Tensor:
        """The mean of z z^T (n, n), or the covariance of z."""
        moment = self._inner / max(self.samples, 1)
        return moment - torch.outer(self.mean, self.mean) if centred else moment

    def solve(self, problem: Problem, ridge: float) -> Solution:
        r"""The ridge regression of outputs on inputs.

        .. math::
            \min_{W, c} \frac{1}{N} \sum_t |r_t - W z_t - c|^2 + \rho \, \frac{\mathrm{tr}\, C}{n'} \, |W|^2

        with C the covariance of z (its second moment without a constant), so
        :math:`W = D^T (C + \rho \, \mathrm{tr}(C) / n' \, I)^{-1}` with D the covariance of z and r, and
        :math:`c = \bar r - W \bar z`.

        Args:
            problem: What is regressed on what.
            ridge: :math:`\rho > 0`.
        """
        columns, rows = problem.columns, problem.rows
        count = max(self.samples, 1)
        covariance = self._inner[columns][:, columns] / count
        cross = self._cross[columns, rows] / count
        mean_in, mean_out = self._inputs[columns] / count, self._outputs[rows] / count
        if problem.constant:
            covariance = covariance - torch.outer(mean_in, mean_in)
            cross = cross - torch.outer(mean_in, mean_out)
        covariance.diagonal().add_(ridge * covariance.diagonal().mean())
        weights = _solve(covariance, cross, problem.allowed)
        return Solution(weights, mean_out - weights @ mean_in if problem.constant else torch.zeros_like(mean_out))

    def error(self, problem: Problem, solution: Solution | None = None) -> float:
        """The sum over the samples of |r - W z - c|^2; of |r|^2 without a solution."""
        columns, rows = problem.columns, problem.rows
        squares = self._squares[rows].sum()
        if solution is None:
            return float(squares)
        weights, constant = solution.weights, solution.constant
        inner, cross = self._inner[columns][:, columns], self._cross[columns, rows]
        total = squares + ((weights @ inner) * weights).sum() - 2 * (weights * cross.T).sum()
        shift = weights @ self._inputs[columns] - self._outputs[rows]
        total += (constant * (2 * shift + self.samples * constant)).sum()
        return float(total.clamp(min=0.0))


def choose_ridge(halves: tuple[Moments, Moments], problem: Problem, ridges: Sequence[float] = RIDGES) -> float:
    """That of the rising ridges whose fit on either half of the samples errs least on the other; larger of equals."""
    errors = dict.fromkeys(ridges, 0.0)
    for fitted, tested in (halves, halves[::-1]):
        for ridge in ridges:
            errors[ridge] += tested.error(problem, fitted.solve(problem, ridge))
    return min(reversed(ridges), key=lambda ridge: errors[ridge])


def pattern_cost(allowed: Tensor) -> float:
    """Multiplications that `Moments.solve` takes for these patterns, n^3 / 3 for each different row."""
    patterns = allowed.unique(dim=0)
    return float((patterns.sum(1).double() ** 3 / 3.0).sum())


def _solve(matrix: Tensor, cross: Tensor, allowed: Tensor | None) -> Tensor:
    """(matrix^-1 cross)^T, row by row on the allowed columns only."""
    if allowed is None:
        return _solve_all(matrix, cross)
    weights = torch.zeros(allowed.shape, dtype=matrix.dtype, device=matrix.device)
    patterns, which = allowed.unique(dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        rows, columns = (which == index).nonzero().flatten(), pattern.nonzero().flatten()
        if len(columns):
            weights[rows[:, None], columns] = _solve_all(matrix[columns][:, columns], cross[columns][:, rows])
    return weights


def _solve_all(matrix: Tensor, cross: Tensor) -> Tensor:
    """For a symmetric positive matrix; its pseudo-inverse if it is not quite positive."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        return torch.cholesky_solve(cross, factor).T
    values, vectors = torch.linalg.eigh(matrix)
    usable = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    inverse = torch.where(usable, 1.0 / values.where(usable, torch.ones_like(values)), torch.zeros_like(values))
    solved: Tensor = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return solved.T

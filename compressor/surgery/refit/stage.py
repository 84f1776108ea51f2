"""One layer's sums, fitted by regression; see `consumers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.nn.least_squares import Moments, Problem, Solution, choose_ridge, pattern_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.surgery.refit.calibration import Call
    from compressor.surgery.refit.terms import Models, Sum, Term

_MOST_MULTIPLICATIONS = 1e11
"""What one solve of a masked matrix may take; about half a minute on one core."""
_LEAST_ROWS, _ROWS_PER_INPUT = 1024, 4
"""Of each call at most max(1024, 4 n) of its rows count: neighbouring steps tell nearly the same."""


class Stage:
    """One layer's sums, and what their regression needs to know of the samples, in two halves."""

    recurrent = False
    """Whether the layer's weights decide about its own inputs, so that it is fitted alternately."""

    def __init__(self, models: Models, module: str, terms: Sequence[Term], sums: Sequence[Sum]) -> None:
        """No samples yet."""
        self.models, self.module, self.terms, self.sums = models, module, tuple(terms), tuple(sums)
        self._columns = _ranges([term.before.size(1) for term in terms])
        self._outputs = _ranges([part.rows.stop - part.rows.start for part in sums])
        device = terms[0].before.device
        sizes = self._columns[-1].stop, self._outputs[-1].stop
        self._halves = Moments(*sizes, device), Moments(*sizes, device)
        self._random = torch.Generator().manual_seed(0)
        self._solutions: list[Solution] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are fitted."""
        biases = dict.fromkeys(part.bias.name for part in self.sums if part.bias is not None)
        return (*(term.name for term in self.terms), *biases)

    def obstacle(self) -> str | None:
        """Why the layer cannot be fitted."""
        masks = [problem.allowed for problem in map(self._problem, range(len(self.sums)))]
        cost = sum(pattern_cost(mask) for mask in masks if mask is not None)
        return "its mask has too many different rows" if cost > _MOST_MULTIPLICATIONS else None

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """For each term what W, and what W', is applied to in a call: (N, n) and (N, n').

        Args:
            before: The call in the original model.
            after: The same one in the smaller model.
            forced: Recurrent states are the original's, not those that the smaller layer came to.
        """
        raise NotImplementedError

    def observe(self, before: Call, after: Call, *, half: int, forced: bool) -> str | None:
        """Take in one call, for one half of the samples; gives a reason if the models cannot be compared."""
        for wide, narrow in self.pairs(before, after, forced=forced):
            count = len(wide[0])
            if any(len(part) != count for part in (*wide, *narrow)):
                return "its inputs have another number of steps in the smaller model"
            most = max(_LEAST_ROWS, _ROWS_PER_INPUT * self._columns[-1].stop)
            if count > most:
                chosen = torch.randperm(count, generator=self._random)[:most].to(wide[0].device)
                wide, narrow = [part[chosen] for part in wide], [part[chosen] for part in narrow]  # noqa: PLW2901
            inputs = [part.double() for part in narrow]
            lost = [
                old.double() @ term.original.T - new @ term.before.T
                for old, new, term in zip(wide, inputs, self.terms, strict=True)
            ]
            targets = [torch.stack([lost[index][:, part.rows] for index in part.terms]).sum(0) for part in self.sums]
            self._halves[half].add(torch.cat(inputs, 1), torch.cat(targets, 1))
        return None

    def fit(self, ridge: float | None) -> None:
        """Set the weights and biases of the smaller model's layer."""
        moments = self._halves[0] + self._halves[1]
        self._solutions = []
        for index, part in enumerate(self.sums):
            problem = self._problem(index)
            solution = moments.solve(problem, choose_ridge(self._halves, problem) if ridge is None else ridge)
            self._solutions.append(solution)
            changes = solution.weights.split([self.terms[index].before.size(1) for index in part.terms], dim=1)
            for term, change in zip((self.terms[index] for index in part.terms), changes, strict=True):
                value = term.before[part.rows] + change
                term.parameter[part.rows] = value.view_as(term.parameter[part.rows]).to(term.parameter.dtype)
            if part.bias is not None:
                value = part.bias.before[part.rows] + solution.constant
                part.bias.parameter[part.rows] = value.to(part.bias.parameter.dtype)

    def errors(self) -> tuple[float, float]:
        """The sums of squared differences without and with the fit, over the samples so far."""
        moments = self._halves[0] + self._halves[1]
        problems = [self._problem(index) for index in range(len(self.sums))]
        after = [moments.error(problem, found) for problem, found in zip(problems, self._solutions, strict=True)]
        return sum(moments.error(problem) for problem in problems), sum(after)

    def _problem(self, index: int) -> Problem:
        part = self.sums[index]
        terms = [self.terms[term] for term in part.terms]
        columns = [torch.arange(self._columns[term].start, self._columns[term].stop) for term in part.terms]
        masked = any(term.allowed is not None for term in terms)
        return Problem(
            columns=torch.cat(columns).to(terms[0].before.device),
            rows=self._outputs[index],
            constant=part.bias is not None,
            allowed=torch.cat([term.mask()[part.rows] for term in terms], dim=1) if masked else None,
        )


def _ranges(sizes: Sequence[int]) -> list[slice]:
    """Slices of these sizes, one behind the other."""
    result, start = [], 0
    for size in sizes:
        result.append(slice(start, start + size))
        start += size
    return result

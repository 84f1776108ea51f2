"""Which rank each matrix gets if all of them together may have so many parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.nn.budget import Point, allocate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Candidate:
    """A matrix, or matrices that are cut together, that may be factored."""

    dense: int
    """Parameters as it is."""
    per_rank: int
    """Parameters of each rank, so r * per_rank when factored."""
    losses: Sequence[float]
    """Part of the energy that is lost at rank 0, 1, ...; falling."""
    most: int
    """The largest rank that makes sense, at least 1 and r * per_rank < dense."""


def allocate_ranks(candidates: Mapping[str, Candidate], parameters: int) -> dict[str, int | None]:
    """Ranks with which all matrices together have at most this many parameters, None = left as it is.

    By the energy lost for each parameter saved (see `compressor.nn.budget`); "as it is" is one of a matrix' points.

    Raises:
        UsageError: Not even rank 1 everywhere is that small.
    """
    least = sum(candidate.per_rank for candidate in candidates.values())
    if least > parameters:
        raise UsageError(
            f"{parameters} parameters are fewer than the {least} of rank 1 everywhere", hint="raise the budget"
        )
    chosen = allocate({name: _points(candidate) for name, candidate in candidates.items()}, parameters)
    return {name: candidates[name].most + 1 - place if place else None for name, place in chosen.items()}


def _points(candidate: Candidate) -> list[Point]:
    """As it is, then every rank from the largest down to 1."""
    ranks = range(candidate.most, 0, -1)
    return [Point(candidate.dense, 0.0), *(Point(r * candidate.per_rank, candidate.losses[r]) for r in ranks)]

"""Which units an order of their connections keeps, and the scores that follow for the removal.

Source: arXiv 2502.16525 (Sengupta), whose abstract asks for meet-irreducible units and centrality; it leaves the order,
the closure and the thresholds open. The readings offered here are those of `compressor.nn.lattice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.lattice import adjacency as relation
from compressor.nn.lattice.bits import Bits
from compressor.nn.lattice.centrality import betweenness, closeness, degree
from compressor.nn.lattice.fuzzy import fuzzy_order, max_min_closure
from compressor.nn.lattice.order import Order, closure_order, degenerate, describe, reachability_order
from compressor.surgery.units.connections import Combine, Connections, connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.surgery.trace.state import Trace
    from compressor.surgery.units.choice import Scores
    from compressor.surgery.units.planning import Scorer

Adjacency = Literal["binary", "continuous"]
OrderName = Literal["closure", "reachability"]
Centrality = Literal["degree", "closeness", "betweenness", "strength"]
_KEPT = 1.0
"""Scores of kept units start here; those of the others lie below."""
BELOW = _KEPT


@dataclass(frozen=True)
class Settings:
    """How the order is made."""

    adjacency: Adjacency = "binary"
    percentile: float = 50.0
    """Binary: weights up to this percentile of their strengths do not count."""
    threshold: float | None = None
    """Binary: an absolute strength instead of a percentile."""
    order: OrderName = "closure"
    combine: Combine = "max"
    centrality: Centrality = "degree"
    tolerance: float = 0.0
    """Continuous: degrees that differ by no more are equal."""


@dataclass(frozen=True)
class Reading:
    """What an order says of the units of one set of connections."""

    connections: Connections
    passing: Tensor
    """(n, n), boolean: the connections that count; all that are there in the continuous form."""
    kept: Tensor
    """(n,), boolean: what stands for an irreducible class."""
    centrality: Tensor
    """(n,), float64, >= 0."""
    facts: str
    """One line for the report."""
    order: Order | None
    """None in the continuous form."""

    @property
    def scores(self) -> Tensor:
        """(n,): 1 + c for kept units and c for the others, c in 0..1 being the centrality."""
        return self.kept.double() * _KEPT + self.centrality / (1.0 + float(self.centrality.max()))


def read(connected: Connections, settings: Settings) -> Reading:
    """Make the order and see which units it keeps.

    Of units with equal extents (`closure`) the most central one stands for the class, the first of equal ones; the
    units of a strongly connected component (`reachability`) are equal in the order only, and all of them stay.

    Raises:
        MethodError: The order is degenerate: it would keep nothing, or says nothing.
    """
    order: Order | None = None
    if settings.adjacency == "binary":
        threshold = _threshold(connected, settings)
        passing = relation.binary(connected.strengths, threshold) & connected.present
        packed = Bits.pack(passing)
        order = closure_order(packed) if settings.order == "closure" else reachability_order(packed)
        classes, irreducible = order.classes, order.irreducible
        shape = f"height {int(order.heights.max())}, {int(order.covers.counts().sum())} covers; "
        shape += f"{int(passing.sum())} of {int(connected.present.sum())} connections above {float(threshold):.3g}"
    else:
        degrees = relation.continuous(connected.strengths)
        if settings.order == "reachability":
            degrees = max_min_closure(degrees)
        fuzzy = fuzzy_order(degrees, settings.tolerance)
        passing, classes, irreducible = connected.present, fuzzy.classes, fuzzy.irreducible
        shape = f"degrees equal within {settings.tolerance:g}"
    reason = degenerate(classes, irreducible)
    if reason is not None:
        raise MethodError(
            f"the order of {connected.label} cannot guide pruning: {reason}",
            hint="`order: closure` hardly ever collapses; with `reachability`, raise `percentile` (95 and more)"
            if settings.order == "reachability"
            else "choose another `percentile` or `tolerance`",
        )
    centrality = _central(connected, passing, settings.centrality)
    kept = irreducible[classes]
    if settings.order == "closure":
        kept &= _most_central(classes, centrality)
    facts = f"{connected.label}: {describe(classes, irreducible)}; {shape}; {int(kept.sum())} units kept by the order"
    return Reading(connected, passing, kept, centrality, facts, order)


def scorer(settings: Settings, scope: Literal["layer", "global"], seen: list[Reading]) -> Scorer:
    """Scores by the order: from 1 on for units that it keeps, below 1 for the others, by centrality within both.

    Args:
        settings: How the order is made.
        scope: One order for each layer, or one of all.
        seen: Gets the readings of the last trace.
    """

    def score(model: nn.Module, trace: Trace) -> Scores:
        seen[:] = [
            read(connected, settings)
            for connected in connections(model, trace, None, scope=scope, combine=settings.combine)
        ]
        totals = np.zeros(trace.atoms.count)
        for reading in seen:
            # A unit that any layer's order keeps stays, also if it is tied to one that another would let go.
            np.maximum.at(totals, reading.connections.groups, reading.scores.cpu().numpy())
        return totals

    return score


def as_many(by: Scorer, settings: Settings, scope: Literal["layer", "global"]) -> Scorer:
    """The ranking of another score, cut so that as many units of each layer go as the order lets go: a control."""
    lattice = scorer(settings, scope, [])

    def score(model: nn.Module, trace: Trace) -> Scores:
        numbers, ranking = lattice(model, trace), by(model, trace)
        totals = np.zeros(trace.atoms.count)
        for ids in trace.units.values():
            groups = trace.atoms.roots(ids)
            ranks = np.argsort(np.argsort(ranking[groups], kind="stable"), kind="stable")
            going = int((numbers[groups] < BELOW).sum())
            np.maximum.at(totals, groups, (ranks - going) / len(groups) + _KEPT)
        return totals

    return score


def keeping(reading: Reading) -> Tensor:
    """Which connections stay (n, n): those that count and have a kept unit at either end."""
    kept = reading.kept
    return reading.passing & (kept[:, None] | kept[None, :])


def _threshold(connected: Connections, settings: Settings) -> Tensor:
    if settings.threshold is not None:
        return torch.tensor(settings.threshold, dtype=connected.strengths.dtype)
    return relation.percentile(connected.strengths[connected.present], settings.percentile)


def _central(connected: Connections, passing: Tensor, name: Centrality) -> Tensor:
    if name == "strength":
        return connected.strengths.double().sum(0) + connected.strengths.double().sum(1)
    measures: dict[str, Callable[[Tensor], Tensor]] = {
        "degree": degree,
        "closeness": closeness,
        "betweenness": betweenness,
    }
    return measures[name](passing)


def _most_central(classes: Tensor, centrality: Tensor) -> Tensor:
    """The most central unit of each class (n,), the first of equal ones."""
    best = torch.zeros_like(classes, dtype=torch.bool)
    taken: set[int] = set()
    for index in torch.argsort(centrality, descending=True, stable=True).tolist():
        if int(classes[index]) not in taken:
            taken.add(int(classes[index]))
            best[index] = True
    return best

"""Ratios for each layer from a sensitivity map: the reduction that was asked for at the least loss."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from compressor.errors import MethodError
from compressor.surgery.units.choice import Amount

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from compressor.report import LayerSensitivity, Sensitivity

GRID: Final = 100
"""Ratios that are given out are multiples of 1 / GRID."""
BUCKETS: Final = 10_000
"""Reductions are told apart to 1 / BUCKETS of the whole; exactly if there are no more units than that."""
EVENNESS: Final = 1e-6
"""Weight of uneven ratios against the metric's loss: it decides only between allocations that cost the same."""
_MOST_ATTEMPTS: Final = 50

Of = Literal["units", "parameters"]


@dataclass(frozen=True)
class Allocation:
    """A ratio for each module, and what the map says that it costs."""

    ratios: dict[str, float]
    """Module name -> ratio, a multiple of 1 / GRID; 0 = left alone."""
    drop: float
    """Sum of the layers' own losses; an estimate, since layers that are pruned together may lose more or less."""


def loss_at(layer: LayerSensitivity, ratio: float) -> float:
    """The loss of a layer by its curve: 0 at ratio 0, linear between measured ratios, never falling.

    A layer that scores better at a higher ratio than at a lower one does so by noise, so it keeps the larger loss.
    """
    known = [0.0, *itertools.accumulate((max(0.0, point.drop.value) for point in layer.points), max)]
    return float(np.interp(ratio, [0.0, *(point.ratio for point in layer.points)], known))


def allocate(
    sensitivity: Sensitivity, *, budget: float | None = None, max_drop: float | None = None, of: Of = "units"
) -> Allocation:
    r"""The ratios that cost least: :math:`\min \sum_i l_i(r_i)` such that :math:`\sum_i g_i(r_i) \ge` the budget.

    l is `loss_at`; g counts the units that go, or the parameters that go when the layer is pruned alone (their sum
    overstates what goes when neighbours are pruned together; see `allocate_parameters`). Solved exactly over ratios of
    1 / GRID steps by dynamic programming. Where several cost the same, the more even ratios win. No ratio exceeds the
    largest that was measured.

    Args:
        sensitivity: The map; layers without measured points are left alone and do not count.
        budget: Fraction of all these layers' units (of the model's parameters) that must go.
        max_drop: Largest sum of losses; without a budget, as much goes as that allows.
        of: What the budget counts.

    Raises:
        MethodError: The budget cannot be reached, or not within `max_drop`; nothing may go.
    """
    layers = [layer for layer in sensitivity.layers if layer.points]
    total = sensitivity.parameters if of == "parameters" else sum(layer.units for layer in layers)
    options = [_choices(layer, sensitivity.parameters, of) for layer in layers]
    table = _Table(layers, options, total)
    limit = math.inf if max_drop is None else max_drop
    if budget is None:
        place = table.furthest(limit)
        if place == 0:
            raise MethodError(f"no layer can lose a unit within a drop of {limit:g}", hint="allow a larger drop")
        return table.at(place)
    goal = math.ceil(round(budget * total / table.unit, 6))
    cheapest = table.cheapest(goal)
    if cheapest is None:
        raise MethodError(
            f"{100 * budget:.0f} % of the {of} cannot go: at the largest measured ratios it is "
            f"{100 * table.furthest(math.inf) * table.unit / total:.0f} %",
            hint="measure larger ratios, or more layers with `targets`",
        )
    found = table.at(cheapest)
    if found.drop > limit + EVENNESS:
        raise MethodError(
            f"{100 * budget:.0f} % of the {of} costs {found.drop:.4g} by the measured curves, more than {limit:g}; "
            f"within that {100 * table.furthest(limit) * table.unit / total:.0f} % can go",
            hint="lower the budget or allow a larger drop; retraining recovers a part that no curve shows",
        )
    return found


def allocate_parameters(
    sensitivity: Sensitivity, budget: float, max_drop: float | None, left: Callable[[Mapping[str, float]], int]
) -> Allocation:
    """Ratios by which the fraction `budget` of the parameters really goes, `left(ratios)` being what is then left.

    Where two neighbours shrink, the matrix between them is counted in both curves, so the first allocation removes too
    little; the goal is raised by what is missing until it is reached.
    """
    goal = budget
    for _ in range(_MOST_ATTEMPTS):
        found = allocate(sensitivity, budget=goal, max_drop=max_drop, of="parameters")
        missing = budget - (1.0 - left(found.ratios) / sensitivity.parameters)
        if missing <= 0:
            return found
        goal += max(missing, 1.0 / BUCKETS)
    raise MethodError(f"no ratios were found by which {100 * budget:.0f} % of the parameters go")


def units_removed(layer: LayerSensitivity, ratio: float) -> int:
    """How many units a ratio takes from all these layers."""
    return sum(Amount(ratio).removed_of(part) for part in layer.sizes) if ratio else 0


@dataclass(frozen=True)
class _Choice:
    """What a layer may lose."""

    ratio: float
    gain: int
    loss: float


def _choices(layer: LayerSensitivity, parameters: int, of: Of) -> list[_Choice]:
    """Nothing, and every ratio up to the largest measured one that takes at least one unit of each layer."""
    choices = [_Choice(0.0, 0, 0.0)]
    ratios = [0.0, *(point.ratio for point in layer.points)]
    gone = [0, *(parameters - point.parameters for point in layer.points)]
    for step in range(1, math.floor(round(ratios[-1] * GRID, 6)) + 1):
        ratio = step / GRID
        if Amount(ratio).removed_of(min(layer.sizes)) >= 1:
            gain = units_removed(layer, ratio) if of == "units" else math.floor(np.interp(ratio, ratios, gone))
            choices.append(_Choice(ratio, gain, loss_at(layer, ratio)))
    return choices


class _Table:
    """The least cost of every reduction, by dynamic programming over the layers."""

    def __init__(self, layers: Sequence[LayerSensitivity], options: Sequence[Sequence[_Choice]], total: int) -> None:
        self.layers = layers
        self.options = options
        self.unit = max(1, math.ceil(total / BUCKETS))
        """So much is one place of the table; gains are rounded down to it, so what is promised goes."""
        places = 1 + sum(choices[-1].gain // self.unit for choices in options)
        units = sum(layer.units for layer in layers)
        self.costs = np.full(places, math.inf)
        self.costs[0] = 0.0
        self.chosen: list[NDArray[np.intp]] = []
        for layer, choices in zip(layers, options, strict=True):
            shifted = np.full((len(choices), places), math.inf)
            for index, choice in enumerate(choices):
                shift = choice.gain // self.unit
                cost = choice.loss + EVENNESS * layer.units / units * choice.ratio**2
                shifted[index, shift:] = self.costs[: places - shift] + cost
            self.chosen.append(shifted.argmin(axis=0))
            self.costs = shifted.min(axis=0)

    def cheapest(self, goal: int) -> int | None:
        """The place of least cost among those of at least `goal`; None if there is none."""
        beyond = self.costs[goal:]
        return None if not np.isfinite(beyond).any() else goal + int(beyond.argmin())

    def furthest(self, limit: float) -> int:
        """The largest reduction whose cost is within `limit`."""
        return int(np.flatnonzero(np.isfinite(self.costs) & (self.costs <= limit + EVENNESS))[-1])

    def at(self, place: int) -> Allocation:
        """The allocation behind a place of the table."""
        ratios: dict[str, float] = {}
        drop = 0.0
        for layer, choices, chosen in zip(self.layers[::-1], self.options[::-1], self.chosen[::-1], strict=True):
            choice = choices[int(chosen[place])]
            place -= choice.gain // self.unit
            drop += choice.loss
            ratios |= dict.fromkeys(layer.modules, choice.ratio)
        return Allocation(dict(reversed(ratios.items())), drop)

"""The parts of a space: each knows its knobs, and which steps of a recipe a point asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

from compressor.errors import MethodError
from compressor.render.format import plural
from compressor.studies.allocation import GRID, allocate
from compressor.studies.search.knobs import Knob, Point, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.report import Sensitivity

    Steps = list[dict[str, Any]]

MOST: Final = 0.95
"""Largest ratio of units that goes from a layer."""
_ONE_BY_ONE: Final = 6
"""Up to so many layers, each may differ from what all of them lose."""
_APART: Final = 0.3
"""By so much."""
_WHOLE_RANK: Final = 0.95
"""Above it matrices are not cut."""
BITS: Final = "bits"
"""The knob of `precision: mixed`: bits of a weight on average, scales included."""
_SCORES: Final = ("l2", "sensitivity")


class Part(Protocol):
    """Something that may be done to the model."""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """What can be turned."""

    @property
    def described(self) -> str:
        """What it may do, for a reader."""

    def steps(self, point: Point) -> Steps:
        """The recipe's steps for it, in order; none if the point leaves it alone."""


@dataclass(frozen=True)
class Removal:
    """Units of recurrent layers, or the width of others, removed by the layers' sensitivity or evenly."""

    name: str
    """`units` or `width`."""
    groups: tuple[tuple[str, ...], ...]
    """Modules that lose units together."""
    sizes: tuple[tuple[int, ...], ...]
    """Units of each layer and direction of these."""
    map: Sensitivity | None
    """How much each group matters; None if that was too slow to measure."""
    _allotted: dict[int, Mapping[str, float]] = field(default_factory=dict, compare=False)

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """How much goes, how far that follows the map, and by how much single layers differ."""
        knobs = [Knob(self.name, 0.0, MOST, step=1 / GRID, removes=True), Knob(f"{self.name}.score", words=_SCORES)]
        if len(self.groups) > 1:
            if self.map is not None:
                knobs.append(Knob(f"{self.name}.map", 0.0, 1.0, step=0.05))
            if len(self.groups) <= _ONE_BY_ONE:
                knobs += [
                    Knob(f"{self.name}.{group[0] or 'model'}", -_APART, _APART, step=1 / GRID) for group in self.groups
                ]
        return tuple(knobs)

    @property
    def described(self) -> str:
        """Which layers, and how much at most."""
        units, layers = sum(map(sum, self.sizes)), sum(map(len, self.groups))
        tied = "" if layers == len(self.groups) else ", some of them only together"
        return f"{self.name} of {plural(layers, 'layer')} ({units} in all){tied}, up to {100 * MOST:.0f} %"

    def ratios(self, point: Point) -> dict[str, float]:
        """Module -> ratio of its units that go; modules that lose none are left out."""
        share, follows = number(point, self.name), number(point, f"{self.name}.map")
        allotted = self._allotment(share) if follows and share else {}
        ratios: dict[str, float] = {}
        for group, sizes in zip(self.groups, self.sizes, strict=True):
            even_or_map = (1 - follows) * share + follows * allotted.get(group[0], share)
            ratio = even_or_map + number(point, f"{self.name}.{group[0] or 'model'}") if share else 0.0
            ratio = min(max(round(ratio, 2), 0.0), MOST)
            if math.floor(ratio * min(sizes)) >= 1:
                ratios |= dict.fromkeys(group, ratio)
        return ratios

    def steps(self, point: Point) -> Steps:
        """One `magnitude` step."""
        ratios = self.ratios(point)
        if not ratios:
            return []
        return [
            {
                "method": "magnitude",
                "prune": "units",
                "targets": [name or "*" for name in ratios],
                "ratios": {name or "*": ratio for name, ratio in ratios.items()},
                "score": str(point[f"{self.name}.score"]),
            }
        ]

    def _allotment(self, share: float) -> Mapping[str, float]:
        """Ratios that remove `share` of all units at the least loss by the map; the most if that is not possible."""
        assert self.map is not None
        place = round(share * GRID)
        while place not in self._allotted:
            try:
                self._allotted[place] = allocate(self.map, budget=place / GRID).ratios
            except MethodError:  # more than the largest ratios that were measured give
                place -= 1
                if place == 0:
                    return {}
        return self._allotted[place]


@dataclass(frozen=True)
class HeadRemoval:
    """Heads of attention."""

    most: int
    """Heads of the attention that has most."""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """How many go, and whether from each attention alike."""
        return (
            Knob("heads", 0.0, round(1 - 1 / self.most, 2), step=1 / GRID, removes=True),
            Knob("heads.scope", words=("layer", "global")),
        )

    @property
    def described(self) -> str:
        """By its name."""
        return "heads"

    def steps(self, point: Point) -> Steps:
        """One `heads` step."""
        ratio = round(number(point, "heads"), 2)
        if math.floor(ratio * self.most) < 1:
            return []
        return [{"method": "heads", "ratio": ratio, "scope": str(point["heads.scope"])}]


@dataclass(frozen=True)
class RankCut:
    """Matrices as products of two smaller ones."""

    attention: bool
    linear: tuple[str, ...]
    """Linear layers that are large enough."""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """How much of the parameters is left, and of which matrices."""
        words = [*(["attention"] if self.attention else []), *(["linear"] if self.linear else [])]
        knobs = [Knob("rank", 0.2, 1.0, step=0.05, keeps=True)]
        return (*knobs, Knob("rank.of", words=tuple(words))) if len(words) > 1 else tuple(knobs)

    @property
    def described(self) -> str:
        """By its name."""
        return "rank"

    def steps(self, point: Point) -> Steps:
        """One `low_rank_attention` step."""
        left = round(number(point, "rank", 1.0), 2)
        if left >= _WHOLE_RANK:
            return []
        of = str(point.get("rank.of", "attention" if self.attention else "linear"))
        step: dict[str, Any] = {"method": "low_rank_attention", "parameters": left}
        return [step | ({"targets": list(self.linear)} if of == "linear" else {})]


@dataclass(frozen=True)
class Conversion:
    """Another architecture in place of a part, if `allow` names it."""

    word: str
    """`aaren` or `lama`."""
    module: str = ""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Whether it is done."""
        return (Knob(self.word, words=("no", "yes")),)

    @property
    def described(self) -> str:
        """By its name."""
        return self.word

    def steps(self, point: Point) -> Steps:
        """The step of that name."""
        if point[self.word] == "no":
            return []
        more: dict[str, Any] = {"target": self.module, "compare": False} if self.module else {}
        return [{"method": self.word, **more}]


def joined(parts: Sequence[Part]) -> tuple[Knob, ...]:
    """The knobs of all parts."""
    return tuple(knob for part in parts for knob in part.knobs)

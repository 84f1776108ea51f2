"""The space of a search: every recipe that a model's parts and the goals allow, one for each point."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from compressor.recipe.model import Recipe
from compressor.render.format import plural
from compressor.studies.search.knobs import Knob, Point, number
from compressor.studies.search.parts import BITS, MOST, ROUNDED_IN_TRAINING, Removal, Retraining, joined
from compressor.studies.search.stored import FEW, MIDDLE, Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from compressor.formats import ExportOptions
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.parts import Part

Rung = Literal[0, 1, 2]
RUNGS: Final[dict[Rung, str]] = {0: "without training", 1: "short training", 2: "in full"}
SHORT: Final = 1 / 8
"""Length of the retraining of rung 1, in parts of the whole."""
_MIXED: Final = Knob(BITS, 2.75, 7.25, step=0.25, keeps=True)
_BITS_AT_FIRST: Final = (MIDDLE, 3.5)
_GENTLE: Final = 0.25
"""Place of the learning rate, from the lowest to the highest, if nothing was removed: 3e-4 of 1e-4 to 1e-2. Weights
that only have to fit into few bits are near a minimum, which ten times as much leaves."""
_BOLDER: Final = 0.5
"""By so much further if all that can go is gone: what is left has a longer way."""


@dataclass(frozen=True)
class Space:
    """All recipes of a search."""

    goals: Goals
    parts: tuple[Part, ...]
    """What removes and converts, in the order of the recipe's steps."""
    retraining: Retraining | None
    precisions: tuple[str, ...]
    """What weights may be stored in, from the largest to the smallest; none if the format has no choice."""
    left_out: tuple[str, ...]
    """What is not tried and why, in sentences."""
    rounding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Precision -> options of the export's `rounding`, if they are not the defaults."""
    first: tuple[Point, ...] = ()
    """Points that are tried before the seeds of the space."""
    not_taken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Precision -> kinds of nodes that the target does not take of the original; no file may have more."""

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """Everything that can be turned."""
        precision = (Knob("precision", words=self.precisions),) if len(self.precisions) > 1 else ()
        bits = (_MIXED,) if self._mixes else ()
        return (*joined(self.parts), *precision, *bits, *(self.retraining.knobs if self.retraining else ()))

    @property
    def _mixes(self) -> bool:
        """Whether the bits of matrices are searched for."""
        return "mixed" in self.precisions and not self._is_given

    @property
    def _few(self) -> tuple[str, ...]:
        """Precisions of fewer than 8 bits on average; other precisions of a model come with its further files."""
        return tuple(word for word in self.precisions[1:] if word in FEW)

    @property
    def _is_given(self) -> bool:
        """Whether the goals' export gives the precision."""
        return "precision" in self.goals.exports[0].model_fields_set

    def holds(self, point: Point) -> bool:
        """Whether a point gives every knob a value that it can have, and nothing else."""
        return set(point) == {knob.name for knob in self.knobs} and all(
            knob.takes(point[knob.name]) for knob in self.knobs
        )

    def export(self, point: Point) -> ExportOptions:
        """How the file of a point is written."""
        return self.exported_as(self.stored(point))

    def entry(self, point: Point) -> dict[str, Any]:
        """The same as an entry of a recipe's `exports`."""
        options = self.export(point)
        return {"format": options.format, **options.model_dump(mode="json", exclude_unset=True)}

    def exported_as(self, stored: Precision) -> ExportOptions:
        """The goals' export with another precision, if it gives none itself."""
        options = self.goals.exports[0]
        if stored.word is None or self._is_given:
            return options
        given = options.model_dump(exclude_unset=True) | {"precision": stored.word}
        if self.goals.target is not None:  # a recurrent node of few weights is many nodes where there is none
            given = {"may_be_larger": True} | given
        rounding = {**self.rounding.get(str(stored.word), {}), **({} if stored.bits is None else {"bits": stored.bits})}
        return type(options).model_validate(given | ({"rounding": rounding} if rounding else {}))

    def precision(self, point: Point) -> str | None:
        """What the weights of a point are stored in; None if that is the format's own."""
        return self.stored(point).word

    def stored(self, point: Point) -> Precision:
        """The same with the bits of `mixed`."""
        if not self.precisions:
            return Precision(None)
        word = str(point["precision"]) if len(self.precisions) > 1 else self.precisions[0]
        if word != "mixed":
            return Precision(word)
        return Precision(word, number(point, BITS, _BITS_AT_FIRST[0]) if self._mixes else self.goals.mixed_bits)

    def canonical(self, point: Point) -> Point:
        """The same recipe as a point whose knobs that do nothing are where they always are then."""
        still = self._at(0.0, 0.0, str(point.get("precision", "")))
        unused = [knob.name for part in self.parts if not part.steps(point) for knob in part.knobs]
        return point | {name: still[name] for name in (*unused, *self.idle(point))}

    def idle(self, point: Point) -> list[str]:
        """Knobs that do nothing, whatever they are at, as long as the others stay: not those that remove nothing."""
        idle = [BITS] if self._mixes and self.precision(point) != "mixed" else []
        if self.retraining and not self.trains(point):
            idle += [knob.name for knob in self.retraining.knobs if knob.name != ROUNDED_IN_TRAINING]
        if self.retraining and self.retraining.rounds and self.precision(point) not in self.retraining.rounds:
            idle.append(ROUNDED_IN_TRAINING)
        return idle

    def trains(self, point: Point) -> bool:
        """Whether a point has something to retrain: what steps took away, or what rounding to few bits costs."""
        return self.retraining is not None and (bool(self.steps(point, 0)) or self.rounds_in_training(point))

    def rounds_in_training(self, point: Point) -> bool:
        """Whether a point's weights are trained in the few bits of its file."""
        return self.retraining is not None and self.retraining.quantizes(point)

    def first_rung(self, point: Point) -> Rung:
        """Where a point begins: what training in few bits gives, no rung without training tells."""
        return 1 if self.rounds_in_training(point) else 0

    def steps(self, point: Point, rung: Rung) -> list[dict[str, Any]]:
        """The recipe's steps at a rung."""
        steps = [step for part in self.parts for step in part.steps(point)]
        if rung == 0 or self.retraining is None or not self.trains(point):
            return steps
        return [*steps, self.retraining.step(point, SHORT if rung == 1 else 1.0)]

    def is_something(self, point: Point) -> bool:
        """Whether a point's recipe does anything: no step and no rounding is the original."""
        return bool(self.steps(point, 2)) or self.export(point).compresses

    def recipe(self, point: Point, number: int, limits: dict[str, float] | None = None) -> Recipe:
        """The whole recipe of a point, under the number by which the study knows it."""
        return Recipe.model_validate(
            {
                "schema_version": 1,
                "name": f"{self.goals.name}-{number}",
                "description": f"Point {number} of a search.",
                "seed": self.goals.seed,
                "steps": self.steps(point, 2),
                "exports": [self.entry(point)],
                "limits": limits or {},
            }
        )

    def smallest(self) -> Point:
        """The point that leaves least: everything that can go goes, in the fewest bits."""
        point = self._at(level=1.0, follows=0.0, precision=self.precisions[-1] if self.precisions else "")
        return point | {knob.name: knob.low for knob in self.knobs if knob.name in ("rank", BITS)}

    def with_nothing_removed(self) -> list[Point]:
        """The model as it is in each precision, from the smallest on; points that were given come first."""
        stored = list(reversed(self.precisions)) or [""]
        return self._worth_trying([*self.first, *(self.canonical(self._at(0.0, 0.0, word)) for word in stored)])

    def removing(self, level: float) -> Point:
        """So much of what can go, from 0 to 1, by the sensitivity map, in 8 bits if the format has them."""
        return self.canonical(self._at(level, 1.0, self._usual))

    def removing_otherwise(self, level: float) -> list[Point]:
        """The same evenly, in fewer bits, and trained in those; also with nothing removed."""
        points = [self._at(level, 0.0, word) for word in (self._usual, *self._few)]
        if self._mixes:
            points += [self._at(each, 1.0, "mixed") | {BITS: _BITS_AT_FIRST[1]} for each in (0.0, level)]
        for word in self.retraining.rounds if self.retraining else ():
            rounded: Point = {ROUNDED_IN_TRAINING: "yes", **({BITS: _BITS_AT_FIRST[1]} if word == "mixed" else {})}
            points += [self._at(each, 1.0, word) | rounded for each in (0.0, level)]
        return self._worth_trying(map(self.canonical, points))

    @property
    def _usual(self) -> str:
        return "int8" if "int8" in self.precisions else (self.precisions or ("",))[-1]

    def _worth_trying(self, points: Iterable[Point]) -> list[Point]:
        """Each once, without the original as it is."""
        unique: list[Point] = []
        for point in points:
            if point not in unique and self.is_something(point):
                unique.append(point)
        return unique

    @property
    def at_rest(self) -> Point:
        """The point that removes nothing."""
        return self._at(0.0, 0.0, self.precisions[0] if self.precisions else "")

    def _at(self, level: float, follows: float, precision: str) -> Point:
        """Removals at a level from 0 to 1, the rest in the middle or as it was."""
        values: Point = {}
        for part in self.parts:
            for knob in part.knobs:
                values[knob.name] = knob.at(0.0) if knob.words else knob.at(0.5)
                if knob.name in ("units", "width", "heads"):
                    values[knob.name] = knob.at(min(1.0, level))
                elif knob.name == "rank":
                    values[knob.name] = knob.high
                elif knob.name.endswith(".map"):
                    values[knob.name] = follows
                elif isinstance(part, Removal) and not knob.words:
                    values[knob.name] = 0.0
        if len(self.precisions) > 1:
            values["precision"] = precision
        if self._mixes:
            values[BITS] = _BITS_AT_FIRST[0]
        for knob in self.retraining.knobs if self.retraining else ():
            values[knob.name] = knob.at({"batches": 0.75, "lr": _GENTLE + _BOLDER * level}.get(knob.name, 0.5))
            if knob.name == ROUNDED_IN_TRAINING:
                values[knob.name] = knob.words[0]
        return values

    def described(self) -> list[str]:
        """What may be tried, for a reader."""
        lines = []
        for part in self.parts:
            if isinstance(part, Removal):
                units, layers = sum(map(sum, part.sizes)), sum(map(len, part.groups))
                tied = "" if layers == len(part.groups) else ", some of them only together"
                lines.append(
                    f"{part.name} of {plural(layers, 'layer')} ({units} in all){tied}, up to {100 * MOST:.0f} %"
                )
            else:
                lines.append(part.knobs[0].name)
        if self.precisions:
            lines.append(f"precision: {', '.join(self.precisions)}")
        if self.retraining:
            words = " and ".join(self.retraining.rounds)
            rounded = f"; with {words} also in the bits of the file" if words else ""
            lines.append(f"retraining of {self.retraining.least} to {self.retraining.most} batches{rounded}")
        return lines

"""The space of a search: every recipe that a model's parts and the goals allow, one for each point."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from compressor.recipe.model import Recipe
from compressor.studies.search.knobs import Knob, Point, number
from compressor.studies.search.parts import BITS, Conversion, Removal, joined
from compressor.studies.search.retraining import LEARNING_RATE, RETRAINED, ROUNDED_IN_TRAINING, Retraining
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
        bits = (_MIXED,) if self.mixes else ()
        return (*joined(self.parts), *precision, *bits, *self._of_training)

    @cached_property
    def _of_training(self) -> tuple[Knob, ...]:
        """Whether what was removed is trained for, and how."""
        if self.retraining is None:
            return ()
        whether = (Knob(RETRAINED, words=("no", "yes")),) if self.parts else ()
        return (*whether, *self.retraining.knobs)

    @property
    def mixes(self) -> bool:
        """Whether the bits of matrices are searched for."""
        return "mixed" in self.precisions and not self._is_given

    @property
    def few(self) -> tuple[str, ...]:
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
        return Precision(word, number(point, BITS, MIDDLE) if self.mixes else self.goals.mixed_bits)

    def canonical(self, point: Point) -> Point:
        """The same recipe as a point whose knobs that do nothing are where they always are then."""
        still = self._at(0.0, 0.0, str(point.get("precision", "")))
        unused = [knob.name for part in self.parts if not part.steps(point) for knob in part.knobs]
        return point | {name: still[name] for name in (*unused, *self.idle(point))}

    def idle(self, point: Point) -> list[str]:
        """Knobs that do nothing, whatever they are at, as long as the others stay: not those that remove nothing."""
        idle = [BITS] if self.mixes and self.precision(point) != "mixed" else []
        if self.retraining and not self.trains(point):
            idle += [knob.name for knob in self.retraining.knobs if knob.name != ROUNDED_IN_TRAINING]
        if self.retraining and self.retraining.rounds and self.precision(point) not in self.retraining.rounds:
            idle.append(ROUNDED_IN_TRAINING)
        if self.retraining and self.parts:
            idle += (
                [] if self.trains(point | {RETRAINED: "yes"}) != self.trains(point | {RETRAINED: "no"}) else [RETRAINED]
            )
        return idle

    def trains(self, point: Point) -> bool:
        """Whether a point is retrained, for what steps took away or for what rounding to few bits costs."""
        if self.retraining is None:
            return False
        done = [part for part in self.parts if part.steps(point)]
        new = any(isinstance(part, Conversion) for part in done)  # weights that were never trained
        return self.rounds_in_training(point) or new or (bool(done) and point.get(RETRAINED) != "no")

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
        return self.worth_trying([*self.first, *(self.at(0.0, 0.0, word) for word in stored)])

    def removing(self, level: float) -> Point:
        """So much of what can go, from 0 to 1, by the sensitivity map, in 8 bits if the format has them."""
        return self.at(level, 1.0, self.usual)

    @property
    def usual(self) -> str:
        """What weights are stored in as long as units are what counts: 8 bits if the format has them."""
        return "int8" if "int8" in self.precisions else (self.precisions or ("",))[-1]

    def worth_trying(self, points: Iterable[Point]) -> list[Point]:
        """Each recipe once, without the original as it is."""
        unique: list[Point] = []
        for point in map(self.canonical, points):
            if point not in unique and self.is_something(point):
                unique.append(point)
        return unique

    @property
    def at_rest(self) -> Point:
        """The point that removes nothing."""
        return self._at(0.0, 0.0, self.precisions[0] if self.precisions else "")

    def at(self, level: float, follows: float, precision: str) -> Point:
        """Removals at a level from 0 to 1, by the sensitivity map (1) or evenly (0), the rest in the middle."""
        return self.canonical(self._at(level, follows, precision))

    def _at(self, level: float, follows: float, precision: str) -> Point:
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
        if self.mixes:
            values[BITS] = MIDDLE
        for knob in self._of_training:
            values[knob.name] = knob.at({"batches": 0.75, LEARNING_RATE: _GENTLE + _BOLDER * level}.get(knob.name, 0.5))
            if knob.name == ROUNDED_IN_TRAINING:
                values[knob.name] = knob.words[0]
        return values

    def described(self) -> list[str]:
        """What may be tried, for a reader."""
        lines = [part.described for part in self.parts]
        lines += [f"precision: {', '.join(self.precisions)}"] if self.precisions else []
        return lines + ([self.retraining.described] if self.retraining else [])

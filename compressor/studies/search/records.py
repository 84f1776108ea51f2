"""What a study knows: one record for each trial, as read from its storage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compressor.report.fact import Fact
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.study_facts import damaged_study

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna.trial import FrozenTrial

    from compressor.studies.search.knobs import Point
    from compressor.studies.search.space import Rung

State = Literal["running", "done", "lost"]


@dataclass(frozen=True)
class Record:
    """A trial: one point at one rung."""

    number: int
    """Of the trial in the study."""
    point_number: int
    """Of the trial that evaluated the point first, by which it is known."""
    rung: Rung
    point: Point
    state: State
    """`lost`: its worker ended without a result, or another trial did the same."""
    outcome: Outcome | None
    precision: str | None = None
    origin: str = ""
    """Where the point came from: `seed`, `guided` or `random`."""
    is_double: bool = False
    """Given up since another trial stands for the same, or other workers had begun enough."""


@dataclass(frozen=True)
class Trail:
    """What is known of one point: its results from rung to rung."""

    number: int
    point: Point
    precision: str | None
    origin: str
    records: tuple[Record, ...]
    """Results, by rising rung."""
    begun: tuple[Rung, ...]
    """Rungs that are done or under way."""

    @property
    def rung(self) -> Rung | None:
        """The highest rung with a result; None if there is none yet."""
        return self.records[-1].rung if self.records else None

    def outcome(self, rung: Rung) -> Outcome | None:
        """The result of a rung."""
        return next((record.outcome for record in self.records if record.rung == rung), None)

    @property
    def last(self) -> Outcome | None:
        """The result of the highest rung."""
        return self.records[-1].outcome if self.records else None


def trails(records: list[Record]) -> list[Trail]:
    """The points of a study, in the order in which they were drawn."""
    found: dict[int, list[Record]] = {}
    for record in records:
        if record.state != "lost":
            found.setdefault(record.point_number, []).append(record)
    result = []
    for number, own in sorted(found.items()):
        first = own[0]
        done = sorted((record for record in own if record.state == "done"), key=lambda record: record.rung)
        result.append(
            Trail(
                number,
                first.point,
                first.precision,
                first.origin,
                tuple(done),
                tuple(sorted({record.rung for record in own})),
            )
        )
    return result


def models_of(records: Iterable[Record]) -> set[int]:
    """Numbers of the points that are no further file of a model that was tried."""
    return {record.point_number for record in records if record.origin != "sibling"}


class _Noted(Fact):
    """The attributes of a trial."""

    rung: Literal[0, 1, 2]
    origin: str = ""
    precision: str | None = None
    point: Annotated[int, Field(ge=0)] | None = None
    outcome: Outcome | None = None
    double: bool = False
    alive: bool = False


def recorded(trial: FrozenTrial) -> Record:
    """A trial of the storage; raises `UsageError` if it is none of a search."""
    try:
        noted = _Noted.model_validate_json(json.dumps(trial.user_attrs))
    except (ValueError, RecursionError) as error:
        raise damaged_study(f"trial {trial.number}") from error
    finished = trial.state.is_finished()
    return Record(
        number=trial.number,
        point_number=trial.number if noted.point is None else noted.point,
        rung=noted.rung,
        point=dict(trial.params),
        state="running" if not finished else "lost" if noted.outcome is None else "done",
        outcome=noted.outcome,
        precision=noted.precision,
        origin=noted.origin,
        is_double=noted.double,
    )

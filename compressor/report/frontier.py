"""The best files that a search found on one model, for others to know what to expect and where to start."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from compressor.report.document import Document
from compressor.report.fact import Fact, Size, Step
from compressor.report.scores import Drop, Score

_Positive = Annotated[Size, Field(ge=1)]
_Number = Annotated[float | int, Field(ge=-1e15, le=1e15)]


class KnownRecipe(Fact):
    """How a file was made."""

    steps: tuple[Step, ...]
    exports: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=1)]


class KnownPoint(Fact):
    """A file that no other of its search beats."""

    number: int
    bytes: _Positive
    drop: Drop
    """Of the metric, by `evaluate`."""
    latency_ms: float | None = None
    parameters: Size | None = None
    recipe: KnownRecipe
    knobs: dict[str, _Number | str]
    """What it is in the space of its search: the start of another."""


class KnownFrontier(Document):
    """`frontier.json`: the best files that a search found on one model."""

    NAME: ClassVar[str] = "a frontier of a search"
    AGAIN: ClassVar[str] = "`compressor search` writes one into its folder"

    kind: Literal["frontier"] = "frontier"
    name: str
    """Of the task."""
    model: str = ""
    """What it is, in a few words."""
    original: Score
    original_bytes: _Positive
    parameters: Size
    """Of the original."""
    points: tuple[KnownPoint, ...]
    """The smallest first."""
    space: tuple[str, ...]
    """What could be tried."""
    batches: tuple[_Positive, _Positive] | None = None
    """Of the shortest and the longest retraining."""
    max_drop: float | None = None
    """The goal of the search."""
    trials: dict[str, int]
    """Rung in words -> how many."""
    seconds: float
    """That the trials took."""
    conditions: str
    """Machine and versions."""

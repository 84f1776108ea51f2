"""The best files that a search found on one model, for others to know what to expect and where to start."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from compressor.report.document import Document
from compressor.report.fact import Fact
from compressor.report.scores import Drop, Score


class KnownPoint(Fact):
    """A file that no other of its search beats."""

    number: int
    bytes: int
    drop: Drop
    """Of the metric, by `evaluate`."""
    latency_ms: float | None = None
    parameters: int | None = None
    recipe: dict[str, Any]
    """Steps and exports."""
    knobs: dict[str, float | int | str]
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
    original_bytes: int
    parameters: int
    """Of the original."""
    points: tuple[KnownPoint, ...]
    """The smallest first."""
    space: tuple[str, ...]
    """What could be tried."""
    batches: tuple[int, int] | None = None
    """Of the shortest and the longest retraining."""
    max_drop: float | None = None
    """The goal of the search."""
    trials: dict[str, int]
    """Rung in words -> how many."""
    seconds: float
    """That the trials took."""
    conditions: str
    """Machine and versions."""

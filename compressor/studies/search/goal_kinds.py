"""What a file can be asked for: the one table of goals. Everything that goes through goals goes through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compressor.report import GoalName
    from compressor.studies.search.study_facts import OriginalFile


class Asked(Protocol):
    """Goals, of which some may be left out."""

    @property
    def max_drop(self) -> float | None:
        """Largest loss."""

    @property
    def max_bytes(self) -> int | None:
        """Largest file."""

    @property
    def max_latency(self) -> float | None:
        """In ms."""

    @property
    def max_flash(self) -> int | None:
        """In bytes."""

    @property
    def max_ram(self) -> int | None:
        """In bytes."""


class Reached(Protocol):
    """What a file gives."""

    @property
    def drop(self) -> float:
        """Loss of the metric."""

    @property
    def bytes(self) -> float:
        """Of the file."""

    @property
    def latency(self) -> float:
        """In ms."""

    @property
    def flash(self) -> float:
        """In bytes."""

    @property
    def ram(self) -> float:
        """In bytes."""


@dataclass(frozen=True)
class GoalKind:
    """One of the goals; its words are in `compressor.render.goals`."""

    name: GoalName
    """`max_NAME` in a file of goals."""
    limit: str
    """Of a recipe, which the chosen run is held to."""
    asked: Callable[[Asked], float | None]
    reached: Callable[[Reached], float]
    original: Callable[[OriginalFile], float | None]
    """What the original's file has; None if it was not measured."""
    on_board: bool = False
    """Measured on an emulated board."""


KINDS: Final = (
    GoalKind("drop", "metric_drop", lambda goals: goals.max_drop, lambda one: one.drop, lambda _: 0.0),
    GoalKind("bytes", "file_bytes", lambda goals: goals.max_bytes, lambda one: one.bytes, lambda file: file.bytes),
    GoalKind(
        "latency", "latency_ms", lambda goals: goals.max_latency, lambda one: one.latency, lambda file: file.latency_ms
    ),
    GoalKind(
        "flash",
        "flash_bytes",
        lambda goals: goals.max_flash,
        lambda one: one.flash,
        lambda file: file.flash_bytes,
        True,
    ),
    GoalKind("ram", "ram_bytes", lambda goals: goals.max_ram, lambda one: one.ram, lambda file: file.ram_bytes, True),
)
"""In the order in which they are told."""


def asked_for(goals: Asked) -> Iterator[tuple[GoalKind, float]]:
    """The goals that were given, with their numbers."""
    for kind in KINDS:
        wanted = kind.asked(goals)
        if wanted is not None:
            yield kind, float(wanted)


def meets(goals: Asked, original: OriginalFile) -> bool:
    """Whether the original's file meets every goal."""
    reached = [(kind.original(original), wanted) for kind, wanted in asked_for(goals)]
    return all(value is not None and value <= wanted for value, wanted in reached)

"""What the steps of a recipe did."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from compressor.report.fact import Fact
from compressor.report.probes import Probe
from compressor.report.scores import Score


class Change(Fact):
    """What a step did to one parameter or module."""

    name: str
    action: str
    """One or two words: `masked`, `units removed`, `inputs removed`, `trained`."""
    shape_before: tuple[int, ...] = ()
    shape_after: tuple[int, ...] = ()
    parameters_before: int = 0
    parameters_after: int = 0
    nonzeros_before: int = 0
    nonzeros_after: int = 0
    note: str = ""


class Skip(Fact):
    """What a step looked at and left alone, and why."""

    name: str
    reason: str


class Control(Fact):
    """Another way to do what a step did, to the same amount, with the rest of the recipe carried out on it."""

    name: str
    parameters: int = 0
    nonzeros: int = 0
    score: Score | None = None
    """The metric of the PyTorch model right after the step."""
    final: Score | None = None
    """The metric after the last step of the recipe."""
    note: str = ""
    """Why there is no score."""


class StepReport(Fact):
    """One step of the recipe as it was carried out."""

    index: int
    method: str
    options: dict[str, Any]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()
    history: tuple[dict[str, float], ...] = ()
    """One row per epoch or round, for instance {"epoch": 1, "loss": 0.3, "metric": 0.97}."""
    facts: dict[str, float] = Field(default_factory=dict)
    """Numbers about what the step made, such as the properties of a graph."""
    seconds: float = 0.0
    parameters: int = 0
    nonzeros: int = 0
    score: Score | None = None
    """The metric of the PyTorch model right after this step."""
    beside: tuple[Control, ...] = ()
    """What else was done in its stead, for comparison."""
    probes: tuple[Probe, ...] = ()
    """Of the architectures by which the step replaces others."""
    unprobed: tuple[Skip, ...] = ()
    """Layers whose architecture the step replaced without a probe, and why."""

"""The whole report of a run, to and from JSON."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from compressor.report.axes import OpenAxes
from compressor.report.conditions import Conditions
from compressor.report.document import Document
from compressor.report.environment import Environment, Stage
from compressor.report.fact import Fact
from compressor.report.latency import SpeedUp
from compressor.report.measurements import Measurement
from compressor.report.steps import Skip, StepReport


class Limit(Fact):
    """A limit of the recipe and what was reached."""

    name: str
    limit: float
    reached: float
    met: bool


class Report(Document):
    """`report.json` of a run."""

    NAME: ClassVar[str] = "a report of this tool"
    AGAIN: ClassVar[str] = "run the recipe again"

    name: str
    description: str = ""
    task: str
    remark: str = ""
    """What the task says beside its metric."""
    seed: int
    quick: bool = False
    command: tuple[str, ...] = ()
    """Words of the command that made the run; empty if it was made from Python, and in reports of older versions."""
    recipe: dict[str, Any]
    """The resolved recipe, defaults filled in."""
    recipe_sha256: str
    original: Measurement
    elsewhere: tuple[Measurement, ...] = ()
    """The original in further formats, for exports to these."""
    steps: tuple[StepReport, ...]
    compressed: tuple[Measurement, ...]
    """One per successful export, in the recipe's order."""
    speedups: tuple[SpeedUp | None, ...]
    """One per export: its original against it."""
    baselines: tuple[int, ...] = ()
    """One per export: which original it is compared with, 0 for `original`, 1 for the first of `elsewhere`; empty if
    all are compared with `original`."""
    refused: tuple[Skip, ...] = ()
    """Exports that failed, and why; the others are measured."""
    limits: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Every file of the run directory that the run wrote, relative names."""
    axes: OpenAxes | None = None
    """Of the model's inputs and outputs; None in reports of older versions."""
    environment: Environment
    conditions: Conditions | None = None
    """What `compressor reproduce` compares; None in reports of older versions."""
    stages: tuple[Stage, ...] = ()
    """Where the time went, in order."""

    def original_of(self, index: int) -> Measurement:
        """The original that export `index` is compared with: in the same format, if that was possible."""
        return (self.original, *self.elsewhere)[self.baselines[index] if self.baselines else 0]

    @property
    def limits_met(self) -> bool:
        """True if no limit is missed."""
        return all(limit.met for limit in self.limits)

    @model_validator(mode="after")
    def _of_one_run(self) -> Report:
        exports = len(self.compressed)
        if len(self.speedups) != exports or len(self.baselines) not in (0, exports):
            raise ValueError("`speedups` and `baselines` must have one entry for each of `compressed`")
        originals = 1 + len(self.elsewhere)
        if not all(0 <= index < originals for index in self.baselines):
            raise ValueError(f"`baselines` must be numbers from 0 to {originals - 1}")
        return self

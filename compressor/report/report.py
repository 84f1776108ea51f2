"""The whole report of a run, to and from JSON."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError, model_validator

from compressor.errors import ReportError
from compressor.report.axes import OpenAxes
from compressor.report.conditions import Conditions
from compressor.report.environment import Environment, Stage
from compressor.report.fact import Fact
from compressor.report.latency import SpeedUp
from compressor.report.measurements import Measurement
from compressor.report.steps import Skip, StepReport

_MOST_PROBLEMS = 3
_AGAIN = "run the recipe again"


class Limit(Fact):
    """A limit of the recipe and what was reached."""

    name: str
    limit: float
    reached: float
    met: bool


class Report(Fact):
    """`report.json`: the truth of which the table, Markdown and HTML are views."""

    schema_version: int = 1
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

    def to_json(self) -> str:
        """The report as JSON text, keys in the order of the fields; raises `ReportError` on a NaN or infinity."""
        _refuse_non_finite(self.model_dump(mode="python"), "report")
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read `to_json`'s text back; raises `ReportError` if it is not such a text."""
        try:
            report = cls.model_validate_json(text)
        except ValidationError as error:
            problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
            shown = "; ".join(f"`{place}`: {said}" if place else said for place, said in problems[:_MOST_PROBLEMS])
            more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
            raise ReportError(f"not a report of this tool: {shown}{more}", hint=_AGAIN) from error
        _refuse_non_finite(report.model_dump(mode="python"), "report")
        return report

    @model_validator(mode="after")
    def _of_one_run(self) -> Report:
        exports = len(self.compressed)
        if len(self.speedups) != exports or len(self.baselines) not in (0, exports):
            raise ValueError("`speedups` and `baselines` must have one entry for each of `compressed`")
        originals = 1 + len(self.elsewhere)
        if not all(0 <= index < originals for index in self.baselines):
            raise ValueError(f"`baselines` must be numbers from 0 to {originals - 1}")
        return self


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ReportError(f"{path} is {value}", hint="a report holds finite numbers only")

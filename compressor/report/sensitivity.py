"""The metric with each layer of a model pruned alone."""

from __future__ import annotations

from typing import Any

from compressor.report.fact import Fact
from compressor.report.scores import Drop, Score


class SensitivityPoint(Fact):
    """The model with one layer pruned at one ratio and nothing retrained."""

    ratio: float
    units_removed: int
    parameters: int
    """Of the whole model, afterwards."""
    score: Score
    drop: Drop


class LayerSensitivity(Fact):
    """What a layer costs at several ratios; layers whose units are tied can only go together and are one entry."""

    modules: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Units of each layer and direction of these modules."""
    points: tuple[SensitivityPoint, ...] = ()
    """By rising ratio; a ratio that was refused is missing."""
    refused: str | None = None
    """Why a ratio, or all of them, could not be measured."""

    @property
    def units(self) -> int:
        """All units of these modules."""
        return sum(self.sizes)

    @property
    def label(self) -> str:
        """How tables and plots name the entry."""
        return " + ".join(module or "(model)" for module in self.modules)


class Sensitivity(Fact):
    """The metric with each layer of a model pruned alone."""

    version: str
    """Of the tool that measured."""
    measured_at: str
    """Date and time in UTC, ISO 8601."""
    task: str
    function: str
    """`validate` if the task defines one, else `evaluate`."""
    options: dict[str, Any]
    """Of the `magnitude` step, without its ratio."""
    ratios: tuple[float, ...]
    score: Score
    """Of the whole model."""
    parameters: int
    layers: tuple[LayerSensitivity, ...]

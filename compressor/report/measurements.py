"""Everything measured on a file."""

from __future__ import annotations

from typing import Literal

from compressor.report.artifacts import Artifact
from compressor.report.fact import Fact
from compressor.report.latency import Latency, SpeedUp
from compressor.report.layers import LayerCost
from compressor.report.scores import Drop, Score


class LayerSparsity(Fact):
    """Zeros of one parameter after the last step."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    nonzeros: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0..1."""
        return 1.0 - self.nonzeros / self.parameters if self.parameters else 0.0


class StepMeasurement(Fact):
    """Everything measured on the step file of an exported file."""

    macs: int | None
    """Of one step."""
    peak_memory_bytes: int | None
    latency: Latency | None
    """Of one step; `length` is the number of its positions."""
    past: int
    """Positions before the step that was timed; it matters if a state grows."""
    score: Score
    """The same `evaluate`, every sequence run step by step from the initial states."""
    drop: Drop | None = None
    """Against the original's step file, or its whole-sequence file if it has none; None on the original."""
    speedup: SpeedUp | None = None
    """Against the original's step file."""


class Measurement(Fact):
    """Everything measured on one exported file (and the model behind it)."""

    label: Literal["original", "compressed"]
    module: str = ""
    """The module that the file holds, by its name in the task; the metric is that of all files together. Empty: the
    whole model."""
    artifact: Artifact
    parameters: int
    nonzeros: int
    macs: int | None
    """For one sample at the length of `latency`; None if an operator could not be counted."""
    peak_memory_bytes: int | None
    """Growth of the resident set of a fresh process that loads and runs the file."""
    latency: Latency | None
    score: Score
    torch_score: Score
    """The same `evaluate` on the PyTorch model."""
    layers: tuple[LayerSparsity, ...] = ()
    costs: tuple[LayerCost, ...] = ()
    """What each layer takes of this file, in the order of the model; empty if it is no ONNX file, and in reports of
    older versions."""
    drop: Drop | None = None
    """Against the original's file; None on the original."""
    step: StepMeasurement | None = None
    """Of the step file, `artifact.step`; None if there is none."""

    @property
    def sparsity(self) -> float:
        """Fraction of the parameters that are zero, 0..1."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0

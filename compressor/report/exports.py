"""The facts of an export without compression."""

from __future__ import annotations

from compressor.report.artifacts import Artifact
from compressor.report.environment import Environment
from compressor.report.fact import Fact
from compressor.report.latency import Latency
from compressor.report.scores import Score
from compressor.report.steps import Skip


class ExportedFile(Fact):
    """One file, and what was measured on it."""

    artifact: Artifact
    score: Score | None = None
    """The task's metric on the file; None if nothing was measured."""
    latency: Latency | None = None
    """Of one sample at the task's length; of a step file, of one step."""


class ExportReport(Fact):
    """What `compressor export` writes."""

    schema_version: int = 1
    task: str
    remark: str = ""
    parameters: int
    score: Score | None = None
    """The task's metric on the PyTorch model; None if nothing was measured."""
    files: tuple[ExportedFile, ...]
    refused: tuple[Skip, ...] = ()
    """Formats that failed, and why."""
    notes: tuple[str, ...] = ()
    environment: Environment

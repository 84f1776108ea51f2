"""What a replacement architecture can still learn, measured on synthetic tasks."""

from __future__ import annotations

from typing import Any, Literal

from compressor.report.fact import Fact
from compressor.report.scores import Drop, Interval

Verdict = Literal["kept", "lost", "gained", "undecided", "neither"]
"""Of a probe: an ability is kept, lost or gained; within noise; or neither side has it, so nothing follows."""


class ProbeScore(Fact):
    """The accuracy of one architecture on a synthetic task."""

    accuracies: tuple[float, ...]
    """One a seed."""
    mean: float
    interval: Interval | None = None
    """Student's, over seeds; none of one seed."""


class ProbeLength(Fact):
    """Two architectures on a synthetic task at one length."""

    length: int
    chance: float
    """Accuracy of the best guess without the ability."""
    original: ProbeScore
    converted: ProbeScore
    drop: Drop
    """Accuracy of the original minus that of the converted one, Welch's interval over seeds."""
    verdict: Verdict


class ProbeResult(Fact):
    """Two architectures, trained identically on a synthetic task."""

    task: str
    difficulty: str
    needs: str
    """The ability, after "to"."""
    ability: str = ""
    """The same in two or three words, such as `long memory`; empty in reports of earlier versions."""
    meaning: str
    """Which data need it and suffer if it is lost."""
    patience: int = 1
    """How many times the steps of `effort` it was given."""
    trained: ProbeLength
    longer: ProbeLength
    """A length that training has not seen."""
    steps_original: tuple[int, ...]
    """Optimizer steps until it was solved or given up, one a seed."""
    steps_converted: tuple[int, ...]
    parameters_original: int
    """Of the layers that are compared, as they were built for the probe."""
    parameters_converted: int


class Probe(Fact):
    """What an architecture that replaces another can still learn."""

    modules: tuple[str, ...] = ()
    """The layers of the user's model that are converted."""
    original: str
    """The architecture, such as `causal attention`."""
    converted: str
    original_size: str
    """How much of it was built for the probe: `2 layers, 4 heads`."""
    converted_size: str
    results: tuple[ProbeResult, ...]
    seeds: int
    first_seed: int = 0
    effort: dict[str, Any]
    """How the networks were trained."""
    margin: float
    """A difference in accuracy below this does not count."""
    learned: float
    """A side has learned something if its accuracy is at least this part of the way from chance to 1."""
    seconds: float = 0.0


class ProbeFile(Fact):
    """What `compressor probe` writes."""

    schema_version: Literal[1] = 1
    version: str
    """Of the tool that measured."""
    measured_at: str
    """Date and time in UTC, ISO 8601."""
    probes: tuple[Probe, ...]

"""Where and with what a run was made."""

from __future__ import annotations

from compressor.report.fact import Fact


class Environment(Fact):
    """Where and with what a run was made."""

    created: str
    """ISO 8601, UTC."""
    compressor: str
    python: str
    platform: str
    cpu: str
    cores: int
    load: float | None = None
    """Processes that ran or waited for a core, the mean of the last minute of the run; None if the system has none."""
    device: str
    versions: dict[str, str]


class Stage(Fact):
    """A part of a run, and how long it took."""

    name: str
    seconds: float
    """On the clock."""
    processor_seconds: float
    """Of this process, all threads together; runtimes in processes of their own are not counted."""

"""What a run was given besides its recipe, so that it can go on after a kill, and be repeated."""

from __future__ import annotations

from compressor.report.fact import Fact
from compressor.report.fingerprints import Fingerprints


class Conditions(Fact):
    """Options of the command that numbers depend on, and the fingerprints of what it worked on."""

    device: str
    """Its kind: `cpu`, `cuda`, `mps`, `xpu` or another accelerator."""
    threads: int
    """Of a runtime while it is timed."""
    torch_threads: int
    """Of PyTorch on the CPU; sums are split by them, so that last digits may depend on it."""
    processes: int = 1
    """That shared the work of trainings; sums are split by them too."""
    probes: bool
    """Whether replaced architectures are probed."""
    quick: bool
    """Whether it was a rehearsal."""
    fingerprints: Fingerprints

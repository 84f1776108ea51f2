"""What each layer of a model costs in one exported file."""

from __future__ import annotations

from compressor.report.fact import Fact


class LayerCost(Fact):
    """What one module of a model takes of a file and of its run.

    The sums over all layers are those of the `Measurement`, except for the time: the profiler slows the run down.
    """

    name: str
    """Of the module, as in PyTorch; empty: everything of the file that belongs to no module alone."""
    parameters: int
    nonzeros: int
    bytes: int
    """Of its weights as the file stores them, with their scales; of the rest, the graph too."""
    macs: int | None
    """For the sample of the latency; None if an operator of the file could not be counted."""
    milliseconds: float | None
    """Median time of its nodes in ONNX Runtime's profiler, which counts whole microseconds of a node; None if they were
    not timed."""

"""Exported files and what is written next to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compressor.report.fact import Fact
from compressor.report.latency import Latency
from compressor.report.parity import Parity
from compressor.report.quantization import Quantization
from compressor.report.streaming import StreamInfo


class TensorInfo(Fact):
    """An input or output of a file; a dynamic axis is given by its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class FileDescription(Fact):
    """Description of a file whose format does not describe itself: `model.mnn.json` next to `model.mnn`."""

    version: Literal[1] = 1
    format: str
    runtime: str
    """The runtime, by its name in `compressor runtimes list`."""
    inputs: tuple[TensorInfo, ...]
    """In order; dtypes as in PyTorch, of which a runtime may want narrower integers."""
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str] = Field(default_factory=dict)
    """Under `compressor.stream` how a step file is run, a `StreamInfo`."""
    details: dict[str, str] = Field(default_factory=dict)
    """What this runtime's loader needs to know."""


class Part(Fact):
    """A file that belongs to an exported file."""

    path: str
    bytes: int
    sha256: str
    purpose: str
    """What it holds, in a few words."""
    shipped: bool = True
    """Whether the phone needs it; its bytes are then part of the artifact's."""


class RuntimeCheck(Fact):
    """An exported file in another runtime than its own."""

    runtime: str
    """Name and version."""
    parity: Parity
    latencies: tuple[Latency, ...] = ()
    """Of one call, if the runtime was timed: of a browser, by its clock, on one thread and on several."""


class Emulated(Fact):
    """Generated C on a microcontroller, emulated: whether it is right, and what it takes; never how fast it is."""

    cpu: str
    board: str
    """That is emulated, with the emulator's version."""
    compiler: str
    """With its version and optimisation."""
    flash_bytes: int
    """Of the whole program without the test: code, constants, C library, start-up."""
    ram_bytes: int
    """Data, zeroed data and the deepest stack."""
    stack_bytes: int
    """The deepest that a call went."""
    instructions: int
    """The most that one call took."""
    calls: int
    """That were compared with what the same code gave on this machine."""
    max_absolute: float
    """The largest difference."""
    atol: float
    """The largest that passes."""

    @property
    def agrees(self) -> bool:
        """Whether the numbers are right there."""
        return self.max_absolute <= self.atol  # not if it is NaN


class Artifact(Fact):
    """An exported file."""

    format: str
    path: str
    """Relative to the run directory; the first if there are several files, see `parts`."""
    bytes: int
    """Of all files that the phone needs."""
    gzip_bytes: int
    sha256: str
    opset: int | None = None
    """None if the format has none."""
    needs: str = ""
    """The oldest runtime that reads it, such as `ONNX Runtime 1.14`."""
    ir_version: int | None = None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: dict[str, int] = Field(default_factory=dict)
    """Operator type -> number of nodes; empty if the format does not list them."""
    parity: Parity
    """With PyTorch, in `runtime`; of a file in 8 or 4 bits that of the float file that it was made from."""
    runtime: str = ""
    """Name and version of what the file was run in for `parity`; empty in reports of older versions."""
    parts: tuple[Part, ...] = ()
    """Further files."""
    notes: tuple[str, ...] = ()
    """How it was made, if there was a choice."""
    checks: tuple[RuntimeCheck, ...] = ()
    """The same file in other runtimes."""
    seconds: float = 0.0
    stream: StreamInfo | None = None
    """How to run it, if it is a step file. Its `parity` is that of chained steps with PyTorch's whole sequence."""
    chained: Parity | None = None
    """Agreement of the chained steps of a step file with the whole-sequence file; before rounding, as `parity`."""
    step: Artifact | None = None
    """The step file of a whole-sequence file."""
    emulated: Emulated | None = None
    """On the microcontroller that it was exported for."""
    quantization: Quantization | None = None
    """What was rounded to 8 or 4 bits; `parity` is then that of the float file that it was made of."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files that were written, those of the step file included."""
        return (self.path, *(part.path for part in self.parts), *(self.step.files if self.step is not None else ()))

"""Agreement of an exported file with PyTorch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compressor.report.fact import Fact

Origin = Literal["example", "batches", "evaluate"]
"""The function of the task that gave some inputs."""


class ParityPoint(Fact):
    """Agreement of the file with PyTorch at one batch size, length and further sizes, over all outputs."""

    batch: int
    length: int
    sizes: dict[str, int] = Field(default_factory=dict)
    """Of each further open axis, by its name in the task."""
    max_absolute: float
    max_relative: float
    """Largest |file - torch| / (|torch| + atol)."""
    within: bool
    note: str = ""
    """What is wrong besides the numbers, such as another shape; both errors are then infinite."""
    origin: Origin = "example"
    scale: float = 0.0
    """Largest |torch|."""
    needed: float = 0.0
    """The smallest `atol` with which the numbers would be within."""


class OutputNoise(Fact):
    """How far one output of the model itself is off in its precision, over all inputs that were tried."""

    largest: float
    """Largest |computed - exact|."""
    rms: float
    """Of |computed - exact|, root mean square over the elements of one call; that of the worst call."""
    scale: float
    """Largest |exact|."""


class Noise(Fact):
    """How far a model's outputs are from exact ones because of the precision that they are computed in."""

    precision: Literal["float32", "float16"]
    outputs: tuple[OutputNoise, ...]
    multiple: float
    """How many times as far off a file may be."""

    @property
    def largest(self) -> float:
        """Largest over all outputs."""
        return max(output.largest for output in self.outputs)


class Parity(Fact):
    """Agreement of an exported file with PyTorch.

    An output agrees at a point if |file - torch| <= atol + rtol * |torch| everywhere, or if it is not further off than
    a small multiple of the model's own noise; see `compressor.measure.parity`.
    """

    atol: float
    rtol: float
    sha256: str = ""
    """Of the file that was compared: of a rounded file that of the float file that it was made from. Empty in reports
    of older versions."""
    points: tuple[ParityPoint, ...]
    noise: Noise | None = None
    """None if it was not measured."""

    @property
    def passed(self) -> bool:
        """True if every point is within the tolerances."""
        return all(point.within for point in self.points)

    @property
    def largest_error(self) -> float:
        """Largest |file - torch| of all points."""
        return max(point.max_absolute for point in self.points)

"""Agreement of an exported file with PyTorch."""

from __future__ import annotations

from pydantic import Field

from compressor.report.fact import Fact


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


class Parity(Fact):
    """Agreement of an exported file with PyTorch: |file - torch| <= atol + rtol * |torch| everywhere."""

    atol: float
    rtol: float
    sha256: str = ""
    """Of the file that was compared: of a rounded file that of the float file that it was made from. Empty in reports
    of older versions."""
    points: tuple[ParityPoint, ...]

    @property
    def passed(self) -> bool:
        """True if every point is within the tolerances."""
        return all(point.within for point in self.points)

    @property
    def largest_error(self) -> float:
        """Largest |file - torch| of all points."""
        return max(point.max_absolute for point in self.points)

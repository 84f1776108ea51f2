"""Files of ExecuTorch (`.pte`) for XNNPACK on the CPU, checked in ExecuTorch's own runtime.

Whole sequences without recurrent layers take any length of the task; recurrent layers are written out cell by cell.
A step is one part that XNNPACK runs from its first operator to the last, see `exporters.capture.plain_program`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from exporters.options import ProgramOptions
from exporters.programs import export as programs
from exporters.programs.trace import Format

if TYPE_CHECKING:
    from compressor.formats import Job
    from compressor.report import Artifact

_FORMAT = Format("executorch", "ExecuTorch", open_length=True)


class Options(ProgramOptions):
    """Options of `format: executorch`."""

    ending: ClassVar[str] = "pte"
    format: Literal["executorch"] = "executorch"
    """The recipe word of this exporter."""
    precision: Literal["float32", "int8"] = "float32"
    """Of the weights of linear layers and recurrent cells; int8 computes their products in 8 bits."""
    unroll: int = Field(default=16, ge=0, le=100_000)
    """Most recurrent cells that a whole sequence may be written out as: positions x layers x directions. Each takes the
    converter some seconds."""


def export(job: Job[Options]) -> Artifact:
    """Write `model` as a `.pte` file beside `job.path`, and its description.

    Raises:
        ExportError: ExecuTorch is not installed, the model has no such form, or the converter fails on it.
        ParityError: What ExecuTorch computes disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    return programs.export(_FORMAT, job)

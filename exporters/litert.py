"""Files of LiteRT (`.tflite`), converted by litert-torch and checked in LiteRT's interpreter.

Every shape in them is known: one sample, one length, or a step whose states have one size. Recurrent layers have no
operator that is right with a state, so they are written out cell by cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from exporters.options import ProgramOptions
from exporters.programs import export as programs
from exporters.programs.trace import Format

if TYPE_CHECKING:
    from compressor.formats import Job
    from compressor.report import Artifact

_FORMAT = Format("litert", "LiteRT", open_length=False)


class Options(ProgramOptions):
    """Options of `format: litert`."""

    ending: ClassVar[str] = "tflite"
    format: Literal["litert"] = "litert"
    """The recipe word of this exporter."""


def export(job: Job[Options]) -> Artifact:
    """Write `model` as a `.tflite` file beside `job.path`, and its description.

    Raises:
        ExportError: LiteRT is not installed, the model has no such form, or the converter fails on it.
        ParityError: What LiteRT computes disagrees with PyTorch.
        OutputError: The file cannot be written.
    """
    return programs.export(_FORMAT, job)

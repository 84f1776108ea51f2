"""What every comparison of a file with PyTorch shares: the noise that is allowed, the file's name, and the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import ParityError
from compressor.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from compressor.formats import ExportOptions
    from compressor.report import Noise, Parity
    from compressor.task.contract import Inputs


class Disagreement(ParityError):
    """A `ParityError` that holds the comparison."""

    def __init__(self, parity: Parity, message: str, *, hint: str | None = None) -> None:
        """For a comparison that was not passed."""
        super().__init__(message, hint=hint)
        self.parity = parity

    @classmethod
    def of(cls, parity: Parity, subject: str, *, hint: str = "") -> Disagreement:
        """With the kind of disagreement, all points, and the remedy for that kind unless there is a better hint."""
        from compressor.measure.diagnosis import diagnose

        diagnosis = diagnose(parity)
        tolerances = f"(atol {parity.atol:g}, rtol {parity.rtol:g})"
        return cls(parity, f"{subject} {tolerances}: {diagnosis.of(parity)}", hint=hint or diagnosis.remedy)


def of_file(compared: Parity, candidate: Path) -> Parity:
    """A comparison that names the file that was compared."""
    return compared.model_copy(update={"sha256": sha256(candidate)})


def noise_of(model: nn.Module, options: ExportOptions) -> Callable[[Sequence[Inputs]], Noise | None]:
    """Measures the noise that a file of these options may have, on the inputs that are compared; None if none may."""
    from compressor.measure import float_noise

    if options.strict:
        return lambda inputs: None
    return lambda inputs: float_noise.measure(model, inputs, options.computes_in)

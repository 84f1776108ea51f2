"""What was rounded in a file, and what that costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from compressor.report.fact import Fact
from compressor.report.parity import Parity


class QuantizedMatrix(Fact):
    """One weight of a file in 8 or 4 bits; of a file for NPUs also all nodes of an operator that has no weight."""

    name: str
    operators: tuple[str, ...]
    """Types of the operators that use it."""
    shape: tuple[int, ...]
    form: Annotated[str, Field(pattern="^(float|half|int4|static|(weights|integer)[2-6]?)$")]
    """`half`: float16, float32 again in front of the operator. `weights`: the same with 8 bits. `integer`: 8 bits,
    multiplied as integers. With a number: so many bits in the file, of which floats or 8-bit integers are made once.
    `int4`: 4 bits. `static`: 8 bits, and the operator in integers of calibrated scales."""
    bytes_before: int
    bytes_after: int
    """Scales included."""
    errors: dict[str, float] = Field(default_factory=dict)
    """Form -> relative error of the outputs on calibration data with this matrix alone in that form."""
    metric_drop: float | None = None
    """Loss of the metric with this matrix alone in its first form; measured if the metric decides."""
    second_order: float = Field(default=0.0, ge=0, le=1)
    """The part of its rows whose integers were chosen by second order; the others are to the nearest."""
    note: str = ""
    """Why it is float, or in another form than asked."""


class QuantizationPoint(Fact):
    """A quantized file compared with PyTorch at one batch size and length."""

    batch: int
    length: int
    error: float
    """Largest relative error of an output: norm of the difference / norm of the output."""
    within: bool


class Quantization(Fact):
    """What was rounded in a file, and what that costs."""

    precision: Literal["int8", "int4", "mixed"]
    target: str
    matrices: tuple[QuantizedMatrix, ...]
    method: Literal["second_order", "nearest"] = "nearest"
    """How integers were chosen."""
    samples: int
    """Sequences of calibration data."""
    calibration: str | None = None
    """How the ranges of activations were found on them; None if activations are not rounded by fixed scales."""
    activations: str | None = None
    """What they are stored in there."""
    error: float
    """Relative error of the outputs on them."""
    max_error: float
    structure: Parity
    """The file with its activations left in float, compared with the float file of the same rounded weights."""
    deviation: tuple[QuantizationPoint, ...]
    """The file itself, compared with PyTorch."""
    beside_whole: tuple[QuantizationPoint, ...] = ()
    """Chained steps of a rounded step file, compared with the file of whole sequences that is shipped with it."""
    function: Literal["validate", "evaluate"] | None = None
    """What measured the metric; None if output errors alone decided."""
    metric_drop: float | None = None
    """Loss of the metric by the rounding."""
    metric_drop_allowed: float | None = None

"""The option `rounding`: how matrices become integers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["second_order", "nearest"]
_OF_NPUS = {"activations", "calibration", "per_channel"}


class Rounding(BaseModel):
    """How `precision: int8`, `int4` and `mixed` round: for whom, within which error, and what stays float."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    quantize_for: Literal["cpu", "anywhere", "npu"] = "cpu"
    """`cpu`: products of integers, for ONNX Runtime on a CPU: small and fast. `anywhere`: 8 or 4 bits in the file, of
    which floats are made once, at load: as small, as fast as float, exact activations, plain ONNX. `npu`: pairs of
    QuantizeLinear and DequantizeLinear of calibrated scales around everything, recurrent layers as plain operations,
    for the fixed sizes of `shapes`: what accelerators of phones run in integers (QNN, NNAPI)."""
    method: Method = "second_order"
    """`second_order`: the products with training inputs change least: later weights of a row take over the errors of
    earlier ones (GPTQ, arXiv 2210.17323), layer by layer; without training data as `nearest`, which rounds each weight
    on its own."""
    keep_float: tuple[str, ...] = ()
    """Globs of matrices that stay float, by their names in the report."""
    calibration_samples: int = Field(default=64, ge=1, le=10_000)
    """Sequences of the task's training data on which the error of rounding is measured."""
    max_error: float = Field(default=0.1, gt=0, le=1, allow_inf_nan=False)
    """Largest relative error of the outputs by rounding, ||quantized - float|| / ||float||, on this data; and a third
    of the largest one at any of the lengths at which the file is compared with PyTorch."""
    block: Literal[16, 32, 64, 128] = 32
    """Weights with a common scale in fewer than 8 bits."""
    bits: float | None = Field(default=None, ge=2, le=32, allow_inf_nan=False)
    """For `precision: mixed`: bits of a weight on average over all matrices and tables, scales included."""
    file_bytes: int | None = Field(default=None, ge=1)
    """For `precision: mixed`: the largest file of whole sequences."""
    activations: Literal["uint8", "uint16"] = "uint8"
    """For NPUs: what is rounded between the operators. Every NPU has `uint8`; `uint16` is closer, slower, known to QNN
    and not to NNAPI, and needs `opset: 21`."""
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    """For NPUs: the range of a tensor from calibration data: all of it, all but its furthest hundred-thousandth, or
    that whose rounded histogram diverges least (Kullback and Leibler) from the histogram."""
    per_channel: bool = True
    """For NPUs: a scale for each output of a matrix. With `false` one for each matrix, all that NNAPI has for products,
    and QNN's provider before its version 2."""

    @model_validator(mode="after")
    def _options_of_npus_only_for_them(self) -> Rounding:
        changed = list(self.model_dump(include=_OF_NPUS, exclude_defaults=True))
        if changed and not self.for_npu:
            raise ValueError(f"`{changed[0]}` is an option of `quantize_for: npu`")
        return self

    @property
    def for_npu(self) -> bool:
        """Whether the file is for accelerators that compute in integers."""
        return self.quantize_for == "npu"

"""Options of `format: onnx`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.export import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Mapping


_OF_NPUS = ("activations", "calibration", "per_channel")
"""Options of `quantize_for: npu`."""


_OF_ROUNDING = ("quantize_for", "keep_float", "calibration_samples", "max_error", "block", *_OF_NPUS)
"""Options of `precision: int8` and `int4`."""


_OPSET_OF_16_BITS = 21
"""From it on QuantizeLinear has uint16."""


class Options(ExportOptions):
    """Options of `format: onnx`."""

    ending: ClassVar[str] = "onnx"
    in_onnx_runtime: ClassVar[bool] = True
    format: Literal["onnx"] = "onnx"
    """The recipe word of this exporter."""
    opset: int = Field(default=18, ge=17, le=23)
    """Version of the ONNX operator set. 18 is read by every mobile runtime; 23 has an Attention node that few know. The
    first ONNX Runtime that reads it: 17 1.12, 18 1.14, 19 1.15, 20 1.17, 21 1.18, 22 1.21, 23 1.23."""
    ir_version: int = Field(default=8, ge=8, le=11)
    """Version of the file format. The first ONNX Runtime that reads it: 8 1.12, 9 1.15, 10 1.18, 11 1.23."""
    external_data: Literal["auto"] | bool = "auto"
    """Weights in a file of their own, `NAME.onnx.data`; `auto`: if they are more than the 2 GiB of one file."""
    shapes: dict[Annotated[str, Field(min_length=1)], Annotated[int, Field(ge=1)]] = Field(default={})
    """Sizes at which the file fixes dynamic axes, by the names that the task gives them: `{batch: 1, time: 32}` leaves
    no shape open, which the accelerators of phones want."""
    float_io: bool = True
    """With `precision: float16`, inputs and outputs stay float32 and are cast inside the file."""
    stream: bool = False
    """Also write a step file, `NAME.step.onnx`: one position and the states of all layers in, outputs and new states
    out; and `NAME.step.py`, an example of the loop. Of causal models only."""
    chunk: int = Field(default=1, ge=1, le=256)
    """Positions in a step of the step file."""
    batch: Literal[1, "dynamic"] = 1
    """Streams that the step file runs at once. 1 leaves no shape open, which accelerators of phones want."""
    cells: Literal["auto", "plain", "native"] = "auto"
    """Recurrent layers of the step file as plain operations (MatMul, Sigmoid, ...) or as RNN, GRU and LSTM nodes;
    `auto`: plain if `chunk` is 1."""
    precision: Literal["float32", "float16", "int8", "int4"] = "float32"
    """What weights are stored in. `float16`: computed in it too; recurrent nodes compute in float32 (see
    the module). `int8`: matrices in 8 bits, a scale for each channel. `int4`: matrices of products in
    4 bits, others in 8. Those that cost too much stay float; the report lists them all."""
    quantize_for: Literal["cpu", "anywhere", "npu"] = "cpu"
    """`cpu`: products of integers, for ONNX Runtime on a CPU: small and fast. `anywhere`: 8 bits in the file, float
    again in front of each operator (DequantizeLinear): as small, no faster, exact activations, plain ONNX. `npu`:
    pairs of QuantizeLinear and DequantizeLinear of calibrated scales around everything, recurrent layers as plain
    operations, for the fixed sizes of `shapes`: what accelerators of phones run in integers (QNN, NNAPI)."""
    keep_float: tuple[str, ...] = ()
    """Globs of matrices that stay float, by their names in the report."""
    calibration_samples: int = Field(default=64, ge=1, le=10_000)
    """Sequences of the task's training data on which the error of rounding is measured."""
    max_error: float = Field(default=0.1, gt=0, le=1, allow_inf_nan=False)
    """Largest relative error of the outputs by rounding, ||quantized - float|| / ||float||, on this data; and a third
    of the largest one at any of the lengths at which the file is compared with PyTorch."""
    block: Literal[16, 32, 64, 128] = 32
    """Weights with a common scale in 4 bits."""
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
    def _options_of_rounding_only_with_it(self) -> Options:
        fields = type(self).model_fields
        given = [name for name in _OF_ROUNDING if getattr(self, name) != fields[name].default]
        if given and not self.rounds:
            raise ValueError(f"`{given[0]}` is an option of rounding: give `precision: int8` or `precision: int4`")
        if self.check_in and self.rounds:
            raise ValueError(
                "`check_in` compares with PyTorch to `atol`, which rounded weights do not reach: leave one out"
            )
        if self.precision == "int4" and self.quantize_for != "cpu":
            raise ValueError("4 bits need `MatMulNBits` of ONNX Runtime: give `quantize_for: cpu` or `precision: int8`")
        return self

    @model_validator(mode="after")
    def _options_of_npus(self) -> Options:
        fields = type(self).model_fields
        given = [name for name in _OF_NPUS if getattr(self, name) != fields[name].default]
        if self.quantize_for != "npu":
            if given and self.precision == "int8":
                raise ValueError(f"`{given[0]}` is an option of `quantize_for: npu`")
            return self
        if not self.shapes and not self.stream:
            raise ValueError(
                "NPUs take fixed shapes only: give all sizes, such as `shapes: {batch: 1, time: 32}`, or `stream: true`"
            )
        if self.activations == "uint16" and self.opset < _OPSET_OF_16_BITS:
            raise ValueError(f"`activations: uint16` needs `opset: {_OPSET_OF_16_BITS}` or newer, not {self.opset}")
        return self

    check_in: tuple[Literal["openvino", "tract"], ...] = ()
    """Further runtimes in which the same file must agree with PyTorch; a file that is not right in one of them is not
    written. `compressor runtimes list` shows which are installed."""

    @model_validator(mode="after")
    def _options_of_streams_only_with_a_stream(self) -> Options:
        fields = type(self).model_fields
        given = [name for name in ("chunk", "batch", "cells") if getattr(self, name) != fields[name].default]
        if given and not self.stream:
            raise ValueError(f"`{given[0]}` is an option of the step file, which is written with `stream: true`")
        return self

    @model_validator(mode="after")
    def _options_that_exclude_each_other(self) -> Options:
        if self.stream and self.shapes:
            raise ValueError(
                "`shapes` is for the whole sequence: a step file has fixed shapes already; export both by entries of "
                "their own, with another `name`"
            )
        if not self.float_io and self.precision != "float16":
            raise ValueError("`float_io` is an option of `precision: float16`")
        if not self.float_io and self.stream:
            raise ValueError("a step file keeps float32 states: leave out `float_io`")
        return self

    @property
    def streams(self) -> bool:
        """Whether a step file is written too."""
        return self.stream

    @property
    def compresses(self) -> bool:
        """Whether weights are stored in fewer bits than float32 has."""
        return self.precision != "float32"

    @property
    def fixed_shapes(self) -> Mapping[str, int]:
        """The option `shapes`."""
        return self.shapes

    def unrounded(self) -> Options:
        """The same in float32."""
        exact = {name: type(self).model_fields[name].default for name in ("precision", "float_io", *_OF_ROUNDING)}
        return self.model_copy(update=exact)

    def whole(self) -> Options:
        """The same without a step file."""
        return self.model_copy(update={"stream": False})

    def fallback(self) -> Options:
        """A plain file of whole sequences."""
        return Options()

    @property
    def rounds(self) -> bool:
        """Whether weights are rounded to integers."""
        return self.precision in ("int8", "int4")

    def with_tolerances(self) -> Options:
        """The same with `atol` and `rtol` of the precision, if they were left alone."""
        from exporters.passes import half

        if self.precision != "float16" or {"atol", "rtol"} & self.model_fields_set:
            return self
        return self.model_copy(update={"atol": half.ATOL, "rtol": half.RTOL})

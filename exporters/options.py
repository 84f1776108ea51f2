"""Options that several formats share."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from compressor.formats import EXPORTERS, ExportOptions


class ConvertedOptions(ExportOptions):
    """Options of formats that a converter makes of another file or program."""

    form: Literal["sequence", "step"] = "sequence"
    """A whole sequence at once; or a step: `chunk` positions and the states of all layers in, outputs and new states
    out, of causal models only."""
    chunk: int = Field(default=1, ge=1, le=256)
    """Positions in a step."""
    seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Time limit of the conversion, in seconds."""

    @model_validator(mode="after")
    def _chunk_of_steps_only(self) -> ConvertedOptions:
        if self.chunk != 1 and self.form != "step":
            raise ValueError("`chunk` is an option of steps, which are written with `form: step`")
        return self

    @property
    def is_step(self) -> bool:
        """The option `form`."""
        return self.form == "step"

    def fallback(self) -> ExportOptions:
        """The same form in a file for ONNX Runtime."""
        if self.is_step:
            return EXPORTERS["ort"].options.model_validate({"form": "step", "chunk": self.chunk})
        return EXPORTERS["onnx"].options.model_validate({})


class FixedLengthOptions(ConvertedOptions):
    """Options of formats that may be written for one length only."""

    length: int | None = Field(default=None, ge=1, le=4096)
    """The one length that the file takes, with one sample at a time. By default any, if the format can do that.
    Only `form: sequence` has it: a step takes sequences of any length."""

    @model_validator(mode="after")
    def _length_of_sequences_only(self) -> FixedLengthOptions:
        if self.length is not None and self.form == "step":
            raise ValueError("`length` is an option of whole sequences; a step file takes any length step by step")
        return self


class RoundedOptions(FixedLengthOptions):
    """Options of formats whose weights may have fewer bits, with the float file compared first."""

    precision: Literal["float32", "int8", "int4"] = "float32"
    """Of the weights of linear layers and recurrent cells; int8 and int4 compute their products in 8 bits."""
    quantized_error: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """How far a quantized output may be off, in parts of the largest output; by default 0.05 for int8, 0.2 for int4."""

    @model_validator(mode="after")
    def _error_of_quantized_files_only(self) -> RoundedOptions:
        if self.quantized_error is not None and self.precision == "float32":
            raise ValueError("`quantized_error` is an option of `precision: int8` and `int4`")
        return self

    @property
    def compresses(self) -> bool:
        """Whether weights are stored in fewer bits than float32 has."""
        return self.precision != "float32"

    @property
    def how_rounded(self) -> str:
        """What has which scale, for a report."""
        return "weights have a scale for each output, activations that of the moment"

    def unrounded(self) -> Self:
        """The same in float32."""
        return self.model_copy(update={"precision": "float32", "quantized_error": None})


class ProgramOptions(RoundedOptions):
    """Options of formats that are converted from a PyTorch program."""

    unroll: int = Field(default=64, ge=0, le=100_000)
    """Most recurrent cells that a whole sequence may be written out as: positions x layers x directions. Each takes the
    converter about a second."""

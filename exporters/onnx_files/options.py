"""Options of `format: onnx`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from compressor.formats import ExportOptions
from exporters.quantization.options import Rounding
from exporters.stepping.options import Stream, StreamOption

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    stream: StreamOption = False
    """Also write a step file, `NAME.step.onnx`; the programs in `use/` have the loop. Of causal models only.
    `true`, or options of the step file such as `{chunk: 4}`."""
    precision: Literal["float32", "float16", "int8", "int4", "mixed"] = "float32"
    """What weights are stored in. `float16`: also what the file computes in, recurrent nodes excepted. `int8`: matrices
    in 8 bits, a scale for each channel. `int4`: matrices of products in 4 bits, others in 8. Those that cost too much
    stay float. `mixed`: each matrix and table in 2 to 32 bits, within a budget of all of them, `bits` or `file_bytes`
    of `rounding`. The report lists them all."""
    rounding: Rounding | None = Field(default=None, validate_default=True)
    """How `precision: int8`, `int4` and `mixed` round; the defaults if it is left out."""
    float_io: bool = True
    """With `precision: float16`, inputs and outputs stay float32 and are cast inside the file."""
    programs: bool = True
    """Write programs that run the file into `use/`, ready to paste: Python, JavaScript, C++, Kotlin and Swift. Not in a
    rehearsal."""
    check_in: tuple[Literal["openvino", "tract", "web", "webgpu"], ...] = ()
    """Further runtimes in which the same file must agree with PyTorch; a file that is not right in one of them is not
    written. `web` is ONNX Runtime Web in Chromium, whose clock also times it; `webgpu` the same on the browser's
    graphics processor. `compressor runtimes list` shows which
    are installed."""

    @field_validator("rounding")
    @classmethod
    def _rounding_of_integers_only(cls, rounding: Rounding | None, info: ValidationInfo) -> Rounding | None:
        if info.data.get("precision") in ("int8", "int4", "mixed"):
            return rounding or Rounding()
        if rounding is not None and "precision" in info.data:
            raise ValueError("`rounding` needs integers to round to: give `precision: int8`, `int4` or `mixed`")
        return rounding

    @model_validator(mode="after")
    def _precision_that_the_file_can_have(self) -> Options:
        if not self.float_io and self.precision != "float16":
            raise ValueError("`float_io` is an option of `precision: float16`")
        if not self.float_io and self.stream:
            raise ValueError("a step file keeps float32 states: leave out `float_io`")
        if self.rounding is None:
            return self
        if self.check_in:
            raise ValueError(
                "`check_in` compares with PyTorch to `atol`, which rounded weights do not reach: leave one out"
            )
        if self.precision != "int8" and self.rounding.for_npu:
            raise ValueError("the integers of accelerators have 8 bits: give `precision: int8`")
        self._budget_of_mixed_bits()
        if self.rounding.activations == "uint16" and self.opset < _OPSET_OF_16_BITS:
            raise ValueError(f"`activations: uint16` needs `opset: {_OPSET_OF_16_BITS}` or newer, not {self.opset}")
        return self

    def _budget_of_mixed_bits(self) -> None:
        assert self.rounding is not None
        budgets = [name for name in ("bits", "file_bytes") if getattr(self.rounding, name) is not None]
        if self.precision == "mixed" and len(budgets) != 1:
            raise ValueError(
                "`precision: mixed` needs a budget in `rounding`: either `bits`, such as 4.5 a weight, or `file_bytes`"
            )
        if self.precision != "mixed" and budgets:
            raise ValueError(f"`{budgets[0]}` is an option of `precision: mixed`")

    @model_validator(mode="after")
    def _shapes_that_the_file_can_have(self) -> Options:
        if self.stream and self.shapes:
            raise ValueError(
                "`shapes` is for the whole sequence: a step file has fixed shapes already; export both by entries of "
                "their own, with another `name`"
            )
        if self.rounding is not None and self.rounding.for_npu and not self.shapes and not self.stream:
            raise ValueError(
                "NPUs take fixed shapes only: give all sizes, such as `shapes: {batch: 1, time: 32}`, or `stream: true`"
            )
        return self

    @property
    def step(self) -> Stream | None:
        """How the step file is made, if there is to be one."""
        return self.stream if isinstance(self.stream, Stream) else None

    @property
    def streams(self) -> bool:
        """Whether a step file is written too."""
        return self.step is not None

    @property
    def compresses(self) -> bool:
        """Whether weights are stored in fewer bits than float32 has."""
        return self.precision != "float32"

    @property
    def integers(self) -> Literal["int8", "int4", "mixed"]:
        """The precision, of a file with `rounding`."""
        assert self.precision in ("int8", "int4", "mixed")
        return self.precision

    @property
    def rounding_block(self) -> int | None:
        """The option `block`, if there are matrices of fewer than 8 bits."""
        return self.rounding.block if self.rounding is not None and self.precision in ("int4", "mixed") else None

    @property
    def computes_in(self) -> Literal["float32", "float16"]:
        """`float16` if that is the precision."""
        return "float16" if self.precision == "float16" else "float32"

    @property
    def fixed_shapes(self) -> Mapping[str, int]:
        """The option `shapes`."""
        return self.shapes

    @property
    def is_kept(self) -> bool:
        """Unless another runtime has a say."""
        return not self.check_in

    @property
    def has_programs(self) -> bool:
        """The option `programs`."""
        return self.programs

    def unrounded(self) -> Options:
        """The same in float32."""
        return self.model_copy(update={"precision": "float32", "rounding": None, "float_io": True})

    def whole(self) -> Options:
        """The same without a step file."""
        return self.model_copy(update={"stream": False})

    def fallback(self) -> Options:
        """A plain file of whole sequences."""
        return Options()

    @property
    def tolerances(self) -> tuple[float, float]:
        """Those of the precision, if none were given."""
        from exporters.passes import half

        return super().tolerances if self.strict or self.precision != "float16" else (half.ATOL, half.RTOL)

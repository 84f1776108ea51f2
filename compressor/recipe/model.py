"""What a recipe holds."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressor.formats import ExportOptions
from compressor.methods.base import Method
from compressor.recipe.choice import ChosenBy, formats, methods
from compressor.recipe.exports import name_of_two_files

MAX_STEPS: Final = 100
MAX_EXPORTS: Final = 20


class Limits(BaseModel):
    """What an exported file must reach; a run that misses one ends with exit code 1. All of them are optional.

    They hold for a step file too; its latency is that of one step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric_drop: Annotated[float, Field(ge=0.0)] | None = None
    """Largest loss of the task's metric, absolute and in the metric's own unit; counts downwards for accuracies and
    upwards for errors."""

    metric_drop_relative: Annotated[float, Field(ge=0.0)] | None = None
    """Largest loss of the task's metric as a fraction of the original's: 0.1 is 10 % more errors, if the metric counts
    errors, or an accuracy of 0.9 that falls to 0.81."""

    parameters_ratio: Annotated[float, Field(gt=0.0)] | None = None
    """Least original parameters / compressed parameters."""

    file_ratio: Annotated[float, Field(gt=0.0)] | None = None
    """Least original file size / compressed file size, both exported to the same format."""

    file_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest compressed file, in bytes."""

    flash_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest program of an export with `target`, in bytes: code, constants, C library and start-up."""

    ram_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most memory of an export with `target`, in bytes: states, work area, inputs, outputs and the deepest stack."""

    speedup: Annotated[float, Field(gt=0.0)] | None = None
    """Least original latency / compressed latency, medians of interleaved runs."""

    latency_ms: Annotated[float, Field(gt=0.0)] | None = None
    """Largest median latency of the compressed file, in ms."""

    def largest_drop(self, original: float) -> float | None:
        """What the metric may lose in its own unit, by both limits on it; None if there is none.

        Args:
            original: The metric of the original.
        """
        relative = None if self.metric_drop_relative is None else self.metric_drop_relative * abs(original)
        return min((drop for drop in (self.metric_drop, relative) if drop is not None), default=None)


_SOMETHING_IS_COMPRESSED: Final[dict[str, Any]] = {
    "if": {"properties": {"steps": {"maxItems": 0}}},
    "then": {
        "properties": {
            "exports": {
                "contains": {"required": ["precision"], "properties": {"precision": {"not": {"const": "float32"}}}}
            }
        }
    },
}
"""The rule of `Recipe._something_is_compressed` in JSON Schema."""


class Recipe(BaseModel):
    """How a model is compressed and exported."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, json_schema_extra=_SOMETHING_IS_COMPRESSED
    )

    schema_version: Annotated[int, Field(ge=1, le=1, json_schema_extra={"const": 1}, examples=[1])]
    """Version of this format."""

    name: Annotated[str, Field(min_length=1, max_length=80, examples=["lstm-half"])]
    """What the report calls the run."""

    description: Annotated[str, Field(max_length=2000)] = ""
    """One or two sentences on what the recipe is for."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Start of every random number of the run."""

    steps: Annotated[
        tuple[Annotated[Method, ChosenBy("method", methods)], ...],
        Field(max_length=MAX_STEPS, examples=[[{"method": "retrain"}]]),
    ]
    """Methods, carried out in this order; empty if an export alone makes the model smaller, by its `precision`."""

    exports: Annotated[
        tuple[Annotated[ExportOptions, ChosenBy("format", formats)], ...],
        Field(min_length=1, max_length=MAX_EXPORTS, examples=[[{"format": "onnx"}]]),
    ]
    """Files that are written and measured."""

    limits: Limits = Limits()
    """What every exported file must reach, step files included."""

    @model_validator(mode="after")
    def _something_is_compressed(self) -> Recipe:
        if not self.steps and not any(export.compresses for export in self.exports):
            raise ValueError("`steps` is empty and no export has a `precision`: nothing would be compressed")
        return self

    @model_validator(mode="after")
    def _files_have_names_of_their_own(self) -> Recipe:
        name = name_of_two_files(self.exports)
        if name is not None:
            raise ValueError(f"two files of `exports` would be called `{name}`: give one another `name`")
        return self

    @model_validator(mode="after")
    def _files_hold_the_integers_that_were_trained(self) -> Recipe:
        trained = {step.rounding_block for step in self.steps if step.rounding_block is not None}
        for export in self.exports:
            block = export.rounding_block
            if trained and block is not None and block not in trained:
                raise ValueError(
                    f"a step trains integers in blocks of {min(trained)} weights, and `{export.name}` would round them "
                    f"again in blocks of {block}: leave `block` out of its `rounding`"
                )
        return self

    @model_validator(mode="after")
    def _boards_are_there_for_their_limits(self) -> Recipe:
        for name in ("flash_bytes", "ram_bytes"):
            if getattr(self.limits, name) is not None and not any(export.emulates for export in self.exports):
                raise ValueError(
                    f"`limits.{name}` is that of a microcontroller, and no export has one: write `format: c` with "
                    "`target: cortex-m4` or `cortex-m7`"
                )
        return self

    def resolved(self) -> dict[str, Any]:
        """The recipe as JSON values, defaults filled in."""
        return self.model_dump(mode="json")

    def sha256(self) -> str:
        """Hash of the resolved recipe: the same for two texts that mean the same."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

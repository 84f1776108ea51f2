"""How a model calls a pooling: which argument is the sequence, and which says what of it is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.errors import MethodError
from compressor.nn.record import LayerRecord, parse

MaskKind = Literal["real", "padding", "lengths", "zeros"]
Name = Annotated[str, Field(min_length=1, max_length=256)]

_MOST_ARGUMENTS = 64


class PoolingCallRecord(LayerRecord):
    """What a `PoolingCall` is built from."""

    arguments: Annotated[list[Name], Field(max_length=_MOST_ARGUMENTS)]
    sequence: Name
    axes: Annotated[list[Annotated[int, Field(ge=0, le=2)]], Field(min_length=3, max_length=3)]
    mask: Name | None
    mask_kind: MaskKind | None

    @model_validator(mode="after")
    def _parts_belong_together(self) -> PoolingCallRecord:
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError("`axes` does not name each axis once")
        if (self.mask is None) != (self.mask_kind in (None, "zeros")):
            raise ValueError("`mask` and `mask_kind` do not belong together")
        return self


@dataclass(frozen=True)
class PoolingCall:
    """How a model calls a pooling: which argument is what."""

    arguments: tuple[str, ...]
    """Names of the arguments that may be given by position, in order."""
    sequence: str
    """The one that holds the sequence."""
    axes: tuple[int, int, int] = (0, 1, 2)
    """Where the sequence has its batch, its steps and its features."""
    mask: str | None = None
    """The one that says which steps are real; all are if left out or None."""
    mask_kind: MaskKind | None = None
    """`real` (not 0: a real step), `padding` (not 0: a padded step, so -inf too), both (B, T) once axes of size 1 are
    left out; `lengths` (B,); `zeros`: no argument says it, and steps that are all zeros are padding; None: all real."""

    @classmethod
    def from_record(cls, record: Any) -> PoolingCall:
        """The call that a record describes.

        Raises:
            CheckpointError: The record is not valid.
        """
        fields = parse(PoolingCallRecord, record)
        first, second, third = fields.axes
        return cls(tuple(fields.arguments), fields.sequence, (first, second, third), fields.mask, fields.mask_kind)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds the same."""
        return {
            "arguments": list(self.arguments),
            "sequence": self.sequence,
            "axes": list(self.axes),
            "mask": self.mask,
            "mask_kind": self.mask_kind,
        }

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The sequence (B, T, D) and which steps are real, (B, T) bool or None, of a call's arguments.

        Raises:
            MethodError: The call has no such sequence.
        """
        arguments = dict(zip(self.arguments, args, strict=False)) | kwargs
        sequence = arguments.get(self.sequence)
        if not isinstance(sequence, Tensor) or sequence.dim() != 3:
            described = (
                type(sequence).__name__ if not isinstance(sequence, Tensor) else f"tensor of {sequence.dim()} axes"
            )
            raise MethodError(
                f"a pooling replaced one whose `{self.sequence}` had 3 axes, and is given a {described}",
                hint="let the model call it in one way only",
            )
        sequence = sequence.permute(self.axes)  # (B, T, D)
        if self.mask_kind == "zeros":
            return sequence, (sequence != 0).any(-1)
        mask = None if self.mask is None else arguments.get(self.mask)
        if mask is None:
            return sequence, None
        if self.mask_kind == "lengths":
            steps = torch.arange(sequence.size(1), device=sequence.device)
            return sequence, steps < mask.reshape(-1, 1)
        mask = mask.reshape(sequence.size(0), sequence.size(1))
        if self.mask_kind == "real":
            return sequence, mask if mask.dtype == torch.bool else mask != 0
        return sequence, ~mask if mask.dtype == torch.bool else mask == 0

    def __str__(self) -> str:
        """In words, for a report."""
        axes = ", ".join(dict(zip(self.axes, "BTD", strict=True))[axis] for axis in range(3))
        if self.mask_kind is None:
            return f"sequence `{self.sequence}` ({axes}), every step real"
        if self.mask_kind == "zeros":
            return f"sequence `{self.sequence}` ({axes}), steps of zeros are padding"
        meaning = {"real": "marks the real steps", "padding": "marks the padding", "lengths": "holds the lengths"}
        return f"sequence `{self.sequence}` ({axes}), `{self.mask}` {meaning[self.mask_kind]}"

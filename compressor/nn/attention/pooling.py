"""A pooling of a sequence to one vector in the place of another one, called as that one was called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.attention.lama import LamaAttention, LamaRecord, mean_of_steps, without_padding
from compressor.nn.record import LayerRecord, Size, allocate, parse

MaskKind = Literal["real", "padding", "lengths", "zeros"]
Readout = Literal["mix", "linear", "rows"]
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
    """The one that says which steps are real; all are where it is left out or None."""
    mask_kind: MaskKind | None = None
    """`real` (not 0: a real step), `padding` (not 0: a padded step, so -inf too), both (B, T) once axes of size 1 are
    left out; `lengths` (B,); `zeros`: no argument says it, and steps that are all zeros are padding; None: all real."""

    @classmethod
    def from_record(cls, record: Any) -> PoolingCall:
        """The call that a record describes.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(PoolingCallRecord, record)
        first, second, third = found.axes
        return cls(tuple(found.arguments), found.sequence, (first, second, third), found.mask, found.mask_kind)

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
        given = dict(zip(self.arguments, args, strict=False)) | kwargs
        sequence = given.get(self.sequence)
        if not isinstance(sequence, Tensor) or sequence.dim() != 3:
            found = type(sequence).__name__ if not isinstance(sequence, Tensor) else f"tensor of {sequence.dim()} axes"
            raise MethodError(
                f"a pooling was put in the place of one whose `{self.sequence}` had 3 axes, and is given a {found}",
                hint="let the model call it in one way only",
            )
        sequence = sequence.permute(self.axes)  # (B, T, D)
        if self.mask_kind == "zeros":
            return sequence, (sequence != 0).any(-1)
        mask = None if self.mask is None else given.get(self.mask)
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


class PoolingRecord(LayerRecord):
    """What a `PoolingReplacement` is built from."""

    call: PoolingCallRecord
    width: Size
    lama: LamaRecord | None
    """None for a mean."""
    output_size: Size
    readout: Readout

    @model_validator(mode="after")
    def _sizes_belong_together(self) -> PoolingRecord:
        if self.lama is not None and self.lama.width != self.width:
            raise ValueError("`width` is not that of `lama`")
        problem = readout_problem(
            1 if self.lama is None else self.lama.heads, self.width, self.output_size, self.readout
        )
        if problem is not None:
            raise ValueError(problem)
        return self


def readout_problem(rows: int, width: int, output_size: int, readout: Readout) -> str | None:
    """Why m rows of D features cannot be read out in this way to F; None where they can."""
    if rows * width >= 1 << 24:
        return f"{rows} rows of {width} features are too many"
    if readout == "mix" and output_size % width:
        return f"`readout: mix` gives sums of rows of {width} features, and the output has {output_size}, no multiple"
    if readout == "rows" and output_size != rows * width:
        return f"`readout: rows` gives {rows} x {width} features, and the output has {output_size}"
    return None


class MeanPooling(nn.Module):
    """The mean over the real steps, in the form of a `LamaAttention` of one row and no parameters."""

    rows = 1

    def __init__(self, width: int) -> None:
        """For D = `width` features."""
        super().__init__()
        self.width = width

    def forward(self, sequence: Tensor, real: Tensor | None = None) -> Tensor:
        """(B, T, D) and (B, T) bool to (B, 1, D)."""
        return mean_of_steps(without_padding(sequence, real), real).unsqueeze(1)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"mean over {self.width} features"


class RowMix(nn.Module):
    """Rows (B, m, D) to r weighted sums of them, one after the other (B, r * D); `weight` is (r, m)."""

    def __init__(
        self, rows: int, sums: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Build it; every sum is the mean of the rows at first."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((sums, rows), 1.0 / rows, device=device, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """Mix."""
        return (self.weight @ rows).flatten(1)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.weight.size(1)} rows -> {self.weight.size(0)}"


class PoolingReplacement(nn.Module):
    """Rows pooled from a sequence and a readout of them to what consumers expect: (B, F).

    `mix` makes F / D weighted sums of the m rows (m * F / D parameters); `linear` is a Linear layer from m * D to F
    features; `rows` gives them as they are, one after the other, where m * D = F. Its weights are called `pool.*`,
    `readout.weight` and `readout.bias`.
    """

    def __init__(
        self,
        call: PoolingCall,
        pool: LamaAttention | MeanPooling,
        output_size: int,
        readout: Readout,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Add the readout.

        Args:
            call: How it is called.
            pool: What computes the rows.
            output_size: F.
            readout: Which readout.
            device: Where the readout's weights lie.
            dtype: Their type.

        Raises:
            MethodError: The sizes do not allow that readout.
        """
        super().__init__()
        problem = readout_problem(pool.rows, pool.width, output_size, readout)
        if problem is not None:
            raise MethodError(problem, hint="choose another `readout`: `linear` fits any sizes")
        self.call = call
        self.pool = pool
        self.output_size = output_size
        self.kind = readout
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.readout: RowMix | nn.Linear | None = None
        if readout == "mix":
            self.readout = RowMix(pool.rows, output_size // pool.width, **options)
        elif readout == "linear":
            self.readout = nn.Linear(pool.rows * pool.width, output_size, **options)

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PoolingReplacement:
        """The pooling that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(PoolingRecord, record)
        pool: LamaAttention | MeanPooling = MeanPooling(found.width)
        if found.lama is not None:
            pool = LamaAttention.from_record(found.lama.model_dump(), device=device, dtype=dtype)
        call = PoolingCall.from_record(found.call.model_dump())
        module = cls(call, pool, found.output_size, found.readout, device="meta", dtype=dtype)
        if module.readout is not None:
            allocate(module.readout, device)
        return module

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a pooling of this structure."""
        return {
            "call": self.call.record(),
            "width": self.pool.width,
            "lama": self.pool.record() if isinstance(self.pool, LamaAttention) else None,
            "output_size": self.output_size,
            "readout": self.kind,
        }

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Pool what the arguments of the original hold, to (B, F)."""
        sequence, real = self.call.read(args, kwargs)
        return self.read_out(self.pool(sequence, real))

    def read_out(self, rows: Tensor) -> Tensor:
        """Rows (B, m, D) to (B, F)."""
        if self.readout is None:
            return rows.flatten(1)
        output: Tensor = self.readout(rows if isinstance(self.readout, RowMix) else rows.flatten(1))
        return output

"""A pooling of a sequence to one vector that replaces another one and is called as that one was called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack

import torch
from pydantic import model_validator
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.attention.lama import LamaAttention, LamaRecord, mean_of_steps, without_padding
from compressor.nn.attention.pooling_call import PoolingCall, PoolingCallRecord
from compressor.nn.record import LayerRecord, RecordedLayer, Size, allocate

if TYPE_CHECKING:
    from compressor.nn.factory import FactoryOptions

Readout = Literal["mix", "linear", "rows"]


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
    """Why m rows of D features cannot be read out in this way to F; None if they can."""
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

    def __init__(self, rows: int, sums: int, **factory: Unpack[FactoryOptions]) -> None:
        """Build it; every sum is the mean of the rows at first."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((sums, rows), 1.0 / rows, **factory))

    def forward(self, rows: Tensor) -> Tensor:
        """Mix."""
        return (self.weight @ rows).flatten(1)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.weight.size(1)} rows -> {self.weight.size(0)}"


class PoolingReplacement(RecordedLayer):
    """Rows pooled from a sequence and a readout of them to what consumers expect: (B, F).

    `mix` makes F / D weighted sums of the m rows (m * F / D parameters); `linear` is a Linear layer from m * D to F
    features; `rows` gives them as they are, one after the other, if m * D = F. Its weights are called `pool.*`,
    `readout.weight` and `readout.bias`.
    """

    record_type: ClassVar[type[LayerRecord]] = PoolingRecord

    def __init__(
        self,
        call: PoolingCall,
        pool: LamaAttention | MeanPooling,
        output_size: int,
        readout: Readout,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Add the readout.

        Args:
            call: How it is called.
            pool: What computes the rows.
            output_size: F.
            readout: Which readout.
            **factory: See `FactoryOptions`.

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
        self.readout: RowMix | nn.Linear | None = None
        if readout == "mix":
            self.readout = RowMix(pool.rows, output_size // pool.width, **factory)
        elif readout == "linear":
            self.readout = nn.Linear(pool.rows * pool.width, output_size, **factory)

    @classmethod
    def _built(cls, fields: PoolingRecord, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        pool: LamaAttention | MeanPooling = MeanPooling(fields.width)
        if fields.lama is not None:
            pool = LamaAttention.from_record(fields.lama.model_dump(), device=device, dtype=dtype)
        call = PoolingCall.from_record(fields.call.model_dump())
        module = cls(call, pool, fields.output_size, fields.readout, device="meta", dtype=dtype)
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

"""What the targets with heads share: their record, and how fast their memories fade at the start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from compressor.nn.converted.layer import SequenceLayer
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class HeadedRecord(LayerRecord):
    """What every `HeadedLayer` is built from."""

    input_size: Size
    output_size: Size
    heads: Annotated[int, Field(ge=1, le=1024)]
    keys: Annotated[int, Field(ge=1, le=1024)]
    values: Size
    hidden: Size


class HeadedLayer(SequenceLayer):
    """h heads of k key channels and d values, whose memory has no limit, and units behind them."""

    inner_widths = ("values", "hidden")
    own_usual: ClassVar[Mapping[str, Any]] = {}
    """Fields that its record has beside those of `HeadedRecord`, with what is usual."""
    heads: int
    keys: int
    values: int

    def record(self) -> dict[str, Any]:
        """See `RecordedLayer`."""
        fields = {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "heads": self.heads,
            "keys": self.keys,
            "values": self.values,
            "hidden": self.readout.in_features,
        }
        return self.record_type(**fields, **self.own_fields()).model_dump()

    def own_fields(self) -> dict[str, Any]:
        """What the layer has of `own_usual`."""
        return {}

    @classmethod
    def usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        sizes = {"heads": 4, "keys": 8, "values": max(1, width // 8), "hidden": width}
        return {"input_size": width, "output_size": width, **sizes, **cls.own_usual}

    @property
    def memory(self) -> None:
        """See `SequenceLayer`."""
        return


def fading(heads: int, shortest: float, longest: float) -> Tensor:
    """Biases (h,) of sigmoids with which heads fade to 1/e after `shortest` to `longest` positions, in float64."""
    spans = torch.logspace(math.log10(shortest), math.log10(longest), heads, dtype=torch.float64)
    biases: Tensor = torch.special.logit(torch.exp(-1.0 / spans))
    return biases

"""What the targets with heads share: record, sizes, and how fast their memories fade at the start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Required, Unpack

import torch
from pydantic import Field
from torch import nn

from compressor.nn.converted.layer import SequenceLayer
from compressor.nn.factory import FactoryOptions
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from torch import Tensor


class HeadedRecord(LayerRecord):
    """What every `HeadedLayer` is built from."""

    input_size: Size
    output_size: Size
    heads: Annotated[int, Field(ge=1, le=1024)]
    keys: Annotated[int, Field(ge=1, le=1024)]
    values: Size
    hidden: Size


class HeadSizes(FactoryOptions, total=False):
    """Arguments that every `HeadedLayer` is built from beside its input and output."""

    heads: Required[int]
    """h."""
    keys: Required[int]
    """k, key channels of each head."""
    values: Required[int]
    """d, values of each head."""
    hidden: Required[int]
    """Units behind the heads."""


class HeadedLayer(SequenceLayer):
    """h heads of k key channels and d values, whose memory has no limit, and units behind them."""

    inner_widths = ("values", "hidden")
    expand: nn.Linear

    def __init__(self, **sizes: Unpack[HeadSizes]) -> None:
        """Without layers; a subclass adds `project` and what is its own, then calls `_add_units`."""
        super().__init__()
        self.heads, self.keys, self.values = sizes["heads"], sizes["keys"], sizes["values"]

    def _add_units(self, output_size: int, hidden: int, factory: FactoryOptions) -> None:
        """The units behind the heads, and the readout, with PyTorch's initial weights."""
        self.expand = nn.Linear(self.heads * self.values, hidden, **factory)
        self.readout = nn.Linear(hidden, output_size, **factory)

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {"heads": self.heads, "keys": self.keys, "values": self.values}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {"heads": 4, "keys": 8, "values": max(1, width // 8)}

    @property
    def memory(self) -> None:
        """See `SequenceLayer`."""
        return


def fading(heads: int, shortest: float, longest: float) -> Tensor:
    """Biases (h,) of sigmoids with which heads fade to 1/e after `shortest` to `longest` positions, in float64."""
    spans = torch.logspace(math.log10(shortest), math.log10(longest), heads, dtype=torch.float64)
    biases: Tensor = torch.special.logit(torch.exp(-1.0 / spans))
    return biases

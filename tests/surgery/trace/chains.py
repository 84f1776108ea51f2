"""Features of one layer, a function of them, and a layer that reads what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, INPUTS, CLASSES = 12, 5, 3


class Features(nn.Module):
    """(B, T, 5) -> features (B, T, 12) -> the function -> classes."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, bias: bool = True) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(INPUTS, WIDTH), nn.LazyLinear(CLASSES, bias=bias)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.first(x)))


class Channels(nn.Module):
    """(B, 2, ...) -> 12 channels -> the function -> 3 channels."""

    def __init__(self, function: Callable[[Tensor], Tensor], axes: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        lazy = (nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d)[axes - 1]
        self.first, self.head = conv(2, WIDTH, 1), lazy(CLASSES, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.first(x)))


def sequences() -> list[Tensor]:
    """Two examples for `Features`."""
    return [torch.randn(2, 6, INPUTS).double(), torch.randn(3, 6, INPUTS).double()]


def planes(axes: int) -> list[Tensor]:
    """Two examples for `Channels`."""
    return [torch.randn(batch, 2, *(6, 5, 4)[:axes]).double() for batch in (2, 3)]


def smaller(model: nn.Module, examples: list[Tensor], *, names: tuple[str, ...] = ("first",)) -> nn.Module:
    """The model with half of the features of these layers; the removal is compared with silenced features."""
    torch.manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        model(examples[0])  # sets the size of the head
    return prune(model, {}, [(x,) for x in examples], names=list(names), amount=Amount(ratio=0.5)).model


def refusal(model: nn.Module, examples: list[Tensor]) -> str:
    """Why its features stay."""
    with pytest.raises(SurgeryError) as caught:
        smaller(model, examples)
    return caught.value.message

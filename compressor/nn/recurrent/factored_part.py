"""The weights of one layer in one direction whose input and recurrent matrix may be two factors each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from compressor.nn.factorisation import Factors

Ranks = tuple[int | None, int | None]
"""Of the input and of the recurrent matrix of one layer and direction; None = one dense matrix."""


class PartRanks(LayerRecord):
    """The ranks of one layer in one direction."""

    input: Size | None
    hidden: Size | None


class LowRankPart(nn.Module):
    """The weights of one layer in one direction: what `input` makes of x_t and `hidden` of h_{t-1} goes into G gates.

    Each is an `nn.Linear` or a `LowRankLinear` with G * H outputs, gate after gate as in PyTorch.
    """

    input: nn.Linear | LowRankLinear
    hidden: nn.Linear | LowRankLinear

    def __init__(self, input_size: int, hidden_size: int, gates: int, ranks: Ranks, options: dict[str, Any]) -> None:
        """`options`: `bias`, `device` and `dtype` of the layers."""
        super().__init__()
        rows = gates * hidden_size
        for name, size, rank in zip(("input", "hidden"), (input_size, hidden_size), ranks, strict=True):
            linear = nn.Linear(size, rows, **options) if rank is None else LowRankLinear(size, rows, rank, **options)
            setattr(self, name, linear)

    @property
    def ranks(self) -> Ranks:
        """Of both matrices."""
        ranks = [part.rank if isinstance(part, LowRankLinear) else None for part in (self.input, self.hidden)]
        return ranks[0], ranks[1]

    @property
    def weights(self) -> list[Tensor]:
        """As PyTorch's functions take them: both matrices multiplied out, and both biases if there are any."""
        biases = [part.bias for part in (self.input, self.hidden) if part.bias is not None]
        return [self.input.weight, self.hidden.weight, *biases]


def rank_of(factors: Factors | None) -> int | None:
    """Their rank; None for a dense matrix."""
    return None if factors is None else factors.rank


def fill(linear: nn.Linear | LowRankLinear, weight: Tensor, bias: Tensor | None, factors: Factors | None) -> None:
    """Copy a matrix, its factors and its bias in."""
    if isinstance(linear, LowRankLinear):
        assert factors is not None
        linear.set_factors(factors, bias)
    else:
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
    for parameter in linear.parameters():
        parameter.requires_grad_(weight.requires_grad)

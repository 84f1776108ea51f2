"""Questions about tensors of labels, and about where in the user's code an operation stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.nn.own_code import running_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def varies(labels: Tensor, axis: int) -> bool:
    """Whether the labels differ along an axis."""
    return labels.size(axis) > 1 and bool((labels != labels.narrow(axis, 0, 1)).any())


def mixes(labels: Tensor, axis: int) -> bool:
    """Whether different units meet along an axis; elements without a unit between them are padding."""
    low = torch.where(labels == 0, torch.iinfo(torch.int64).max, labels).amin(axis)
    high = labels.amax(axis)
    return bool(((high != 0) & (high != low)).any())


def filled(labels: Tensor, axes: Sequence[int]) -> Tensor:
    """Padded steps belong to the units that the other steps belong to: they shrink with them."""
    if not axes:
        return labels
    return torch.where(labels == 0, labels.amax(dim=list(axes), keepdim=True), labels)


def place() -> str:
    """File and line of the user's code that is running."""
    line = running_line()
    return "an unknown place" if line is None else f"{Path(line[0]).name}:{line[1]}"

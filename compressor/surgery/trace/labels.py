"""Questions about tensors of labels, and about where in the user's code an operation stands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

_TORCH_FOLDER = str(Path(torch.__file__).parent)
_OUR_FOLDER = str(Path(__file__).parents[2])


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
    """File and line of the user's code that is running: the innermost frame outside torch and this package."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH_FOLDER, _OUR_FOLDER, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "an unknown place"

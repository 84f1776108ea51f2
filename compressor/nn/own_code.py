"""Which modules of a model are of its own code, and which line of that code is running."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from types import FrameType

    from torch import Tensor, nn

_OTHERS = ("torch.", "compressor.")
_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")


def is_own(module: nn.Module) -> bool:
    """Whether a module's class is of the model's own code, not of PyTorch or this package."""
    return not type(module).__module__.startswith(_OTHERS)


def has_own_forward(module: nn.Module) -> bool:
    """Whether its `forward` is of the model's own code, also if its class derives from one of PyTorch's."""
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return not owner.__module__.startswith(_OTHERS)


def running_line() -> tuple[str, int] | None:
    """File and line of the user's code that is running: the innermost frame outside torch and this package."""
    frame = _running_frame()
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def local_name(tensor: Tensor) -> str:
    """What the running function of the user's code calls a tensor; empty if it has no name there."""
    frame = _running_frame()
    values = {} if frame is None else frame.f_locals
    return next((name for name, value in values.items() if value is tensor), "")


def _running_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_FOLDERS):
        frame = frame.f_back
    return frame

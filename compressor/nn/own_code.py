"""Which modules of a model are of its own code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_OTHERS = ("torch.", "compressor.")


def is_own(module: nn.Module) -> bool:
    """Whether a module's class is of the model's own code, not of PyTorch or this package."""
    return not type(module).__module__.startswith(_OTHERS)

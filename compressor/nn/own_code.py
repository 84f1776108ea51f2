"""Which modules of a model are of its own code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_OTHERS = ("torch.", "compressor.")


def is_own(module: nn.Module) -> bool:
    """Whether a module's class is of the model's own code, not of PyTorch or this package."""
    return not type(module).__module__.startswith(_OTHERS)


def has_own_forward(module: nn.Module) -> bool:
    """Whether its `forward` is of the model's own code, also if its class derives from one of PyTorch's."""
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return not owner.__module__.startswith(_OTHERS)

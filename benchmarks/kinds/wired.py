"""A model from its layers and one function that says how they are wired: for kinds that differ in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from benchmarks.kinds.kind import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.kinds.kind import Example


class Wired(nn.Module):
    """Layers by name, and `forward` as a function of the model and its inputs."""

    def __init__(self, wiring: Callable[..., Any], **layers: nn.Module) -> None:
        """Take in layers."""
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Any) -> Any:
        """What the wiring makes of the inputs."""
        return self.wiring(self, *inputs)


def wired(name: str, example: Example, wiring: Callable[..., Any], layers: Callable[[], dict[str, nn.Module]]) -> Kind:
    """A kind of one such model.

    Args:
        name: Of the kind.
        example: (batch, length) -> inputs.
        wiring: (model, *inputs) -> outputs.
        layers: Makes the layers.
    """
    return Kind(name, lambda: Wired(wiring, **layers()), example)

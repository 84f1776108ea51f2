"""A module with the weights of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporters.loops.description import Node


class Adopting(nn.Module):
    """Keeps the layers of a model under their names, and constants, as buffers if the model does not have them."""

    def __init__(self, model: nn.Module, constants: Mapping[str, Tensor]) -> None:
        """Take over the parts of a model; nothing is copied."""
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in model.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.names: dict[str, str] = {}
        """Name of a constant -> name in the module."""
        for name, tensor in constants.items():
            self.names[name] = name
            if not isinstance(_attribute(self, name), Tensor):
                self.names[name] = name.replace(".", "_")
                self.register_buffer(self.names[name], tensor)

    def constant(self, node: Node) -> Tensor:
        """The value of a constant."""
        tensor = _attribute(self, self.names[node.name])
        assert isinstance(tensor, Tensor)
        return tensor


def _attribute(module: nn.Module, name: str) -> object:
    """What a module has under a dotted name, or None."""
    *path, last = name.split(".")
    for part in path:
        inner = getattr(module, part, None)
        if not isinstance(inner, nn.Module):
            return None
        module = inner
    return getattr(module, last, None)

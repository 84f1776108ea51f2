"""Stacks: layers of equal structure one behind the other, as modules of a list or as layers of one recurrent module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from compressor.nn.recurrent.layers import directions, is_layer, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

CONTAINERS = (nn.ModuleList, nn.Sequential)
Signature = tuple[object, ...]
"""What two layers have in common if one may have the other's weights: class; name, shape and type of each weight."""


@dataclass(frozen=True)
class Layer:
    """One layer of a stack."""

    index: int
    """Its place in the list, or the number of the layer in its recurrent module, from 0 on."""
    parameters: dict[str, str]
    """Name inside the layer -> full name in the model."""
    signature: Signature


@dataclass(frozen=True)
class Stack:
    """A list of modules, or a recurrent module of several layers, in which at least two layers are of one structure."""

    name: str
    """Of the list or of the recurrent module."""
    recurrent: bool
    layers: tuple[Layer, ...]
    """Those that have weights."""

    def alike(self) -> list[tuple[Layer, ...]]:
        """The layers of one structure together, for each structure that several layers have."""
        groups: dict[Signature, list[Layer]] = {}
        for layer in self.layers:
            groups.setdefault(layer.signature, []).append(layer)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def layer(self, index: int) -> Layer | None:
        """The layer of that number; None if it is not in the stack or has no weights."""
        return next((layer for layer in self.layers if layer.index == index), None)


def stacks(model: nn.Module) -> list[Stack]:
    """Every stack of the model in its order; those inside a layer of another stack come after that one."""
    every = [_stack(name, module) for name, module in model.named_modules()]
    return [stack for stack in every if stack is not None and stack.alike()]


def outermost(found: Sequence[Stack]) -> list[Stack]:
    """Those that do not lie inside a layer of another one."""
    names = [stack.name for stack in found]
    return [stack for stack in found if not any(name != stack.name and _inside(stack.name, name) for name in names)]


def _inside(name: str, other: str) -> bool:
    return not other or name.startswith(f"{other}.")


def _stack(name: str, module: nn.Module) -> Stack | None:
    if isinstance(module, CONTAINERS):
        return Stack(name, False, tuple(_of_list(name, module)))
    if is_layer(module) and module.num_layers > 1:
        return Stack(name, True, tuple(_of_recurrent(name, module)))
    return None


def _of_list(name: str, container: nn.Module) -> Iterator[Layer]:
    for index, (local, module) in enumerate(container._modules.items()):  # a module that is in it twice is two layers
        named = {} if module is None else dict(module.named_parameters(remove_duplicate=False))
        if named:
            path = joined(name, local)
            yield Layer(index, {key: joined(path, key) for key in named}, (type(module), *_shapes(named)))


def _of_recurrent(name: str, module: nn.RNNBase) -> Iterator[Layer]:
    for number in range(module.num_layers):
        named: dict[str, str] = {}
        tensors: dict[str, Tensor] = {}
        for part in parts(module)[number * directions(module) : (number + 1) * directions(module)]:
            for key, local in part.names.items():
                role = f"{key}_reverse" if part.direction else key
                named[role], tensors[role] = joined(name, local), getattr(module, local)
        yield Layer(number, named, ("layer", *_shapes(tensors)))


def joined(path: str, name: str) -> str:
    """`path.name`; `name` alone inside the model itself."""
    return f"{path}.{name}" if path else name


def _shapes(named: dict[str, Tensor] | dict[str, nn.Parameter]) -> Iterator[tuple[object, ...]]:
    for key, tensor in named.items():
        yield key, tuple(tensor.shape), tensor.dtype

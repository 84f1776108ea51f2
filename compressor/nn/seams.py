"""Marks the modules of a model that become files of their own.

Between two files tensors pass through other people's code, which may make a state of the size that the trained model
had: `torch.zeros(1, batch, hidden)`. The mark cuts such a state to the units that are left, and keeps with the module
through copies and surgery.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Tensors = tuple[Any, ...]


class Narrows(Protocol):
    """What a removal left of a module's inputs."""

    def narrow(self, inputs: Tensors) -> Tensors:
        """The tensors of a call, those that are still too large cut."""


class Seam:
    """A forward pre-hook that marks a module, and cuts the states that it is given."""

    def __init__(self) -> None:
        """Nothing is cut yet."""
        self.cuts: tuple[Narrows, ...] = ()

    def narrow(self, inputs: Tensors) -> Tensors:
        """The tensors of a call after every removal so far."""
        for cut in self.cuts:
            inputs = cut.narrow(inputs)
        return inputs

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call with smaller states; None if nothing is to be cut."""
        return changed_call(module, args, kwargs, self.narrow) if self.cuts else None


def mark(module: nn.Module) -> Seam:
    """Mark a module as a file of its own; it keeps the mark that it has."""
    seam = seam_of(module)
    if seam is None:
        seam = Seam()
        module.register_forward_pre_hook(seam, with_kwargs=True)
    return seam


def unmark(module: nn.Module) -> None:
    """Take the mark off."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, Seam):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)


def seam_of(module: nn.Module) -> Seam | None:
    """The mark of a module; None if it has none."""
    return next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, Seam)), None)


def marked(model: nn.Module) -> Mapping[str, nn.Module]:
    """The marked modules by their names in the model."""
    return {name: module for name, module in model.named_modules() if seam_of(module) is not None}


def tensors_of_call(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among the arguments of `module`, in the order of its parameters."""
    leaves, _ = pytree.tree_flatten(_bound(module, args, kwargs).arguments)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def changed_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], change: Callable[[Tensors], Tensors]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with other tensors in them."""
    bound = _bound(module, args, kwargs)
    leaves, spec = pytree.tree_flatten(bound.arguments)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    for place, tensor in zip(places, change(tuple(leaves[place] for place in places)), strict=True):
        leaves[place] = tensor
    bound.arguments.update(pytree.tree_unflatten(leaves, spec))
    return bound.args, bound.kwargs


def _bound(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    return inspect.signature(module.forward).bind(*args, **kwargs)

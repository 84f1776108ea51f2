"""What `evaluate` calls: the model in PyTorch, files in its place, and each of its modules by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from compressor.task.contract import Inputs


class TorchForward:
    """A model in evaluation mode, tensors on the CPU in and out, no gradients."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """For a model that lies on `device`."""
        self._model, self._device = model, device

    def __call__(self, *inputs: Tensor) -> Any:
        """The flat results for flat inputs."""
        return self._run(self._model, inputs, {})

    def submodule(self, path: str) -> Callable[..., Any]:
        """A module of the model, called as its author wrote it."""
        module = self._model.get_submodule(path)
        return lambda *args, **kwargs: self._run(module, args, kwargs)

    def _run(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                args, kwargs = pytree.tree_map_only(Tensor, lambda part: part.to(self._device), (args, dict(kwargs)))
                return pytree.tree_map_only(Tensor, lambda part: part.cpu(), module(*args, **kwargs))
        finally:
            self._model.train(training)


class AdaptedForward:
    """`forward` behind a function of the model's inputs; its modules are called as before."""

    def __init__(self, forward: Any, adapt: Callable[[Inputs], Inputs]) -> None:
        """Show `forward` behind `adapt`."""
        self._forward, self._adapt = forward, adapt

    def __call__(self, *inputs: Tensor) -> Any:
        """The results for adapted inputs."""
        return self._forward(*self._adapt(inputs))

    def submodule(self, path: str) -> Callable[..., Any]:
        """A module of the model."""
        module: Callable[..., Any] = self._forward.submodule(path)
        return module


class ModelForward:
    """What `evaluate` of a task with `modules` gets: called as the model, and `forward.encoder(...)` as that module."""

    def __init__(self, whole: Callable[..., Any], modules: Mapping[str, Callable[..., Any]]) -> None:
        """For the model, and its modules by their names in the task."""
        self._whole, self._modules = whole, modules

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own call, its modules run as they are here: in PyTorch or from their files."""
        return self._whole(*args, **kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A module by its name in the task."""
        if name.startswith("_") or name not in self._modules:
            listed = ", ".join(f"`{known}`" for known in self.__dict__.get("_modules", ()))
            raise AttributeError(f"`forward` has no `{name}`; the task's `modules` are {listed}")
        return self._modules[name]

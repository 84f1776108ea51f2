"""Cuts parameters down to the kept positions and brings the modules' own size attributes in line."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import LAYERS, STEP_MODULES, parts
from compressor.nn.wide_norms import WIDE_NORMS

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter or buffer name, axis) -> boolean mask over the axis, True = kept."""


def resized_copy(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of `model` with parameters and buffers cut down; tied parameters stay tied.

    What is cut is never copied whole, so the copy costs no more memory than the smaller model.
    """
    by_name: dict[str, dict[int, Tensor]] = {}
    for (name, axis), mask in kept.items():
        by_name.setdefault(name, {})[axis] = mask
    memo: dict[int, Any] = {}
    for name, masks in by_name.items():
        old = tensor_of(model, name)
        new = select(old.detach(), masks)
        memo[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    smaller = copy.deepcopy(model, memo)
    refresh(smaller)
    return smaller


def select(tensor: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    """The kept positions along several axes, as a new contiguous tensor."""
    for axis, mask in masks.items():
        tensor = tensor.index_select(axis, mask.nonzero().flatten().to(tensor.device))
    return tensor.contiguous()


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its full name."""
    owner, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(owner), attribute)  # type: ignore[no-any-return]


def replace(model: nn.Module, replacements: Mapping[int, Tensor]) -> None:
    """Replace parameters and buffers, given by identity, by new tensors in every module that holds them."""
    parameters: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in replacements:
                new = parameters.setdefault(
                    id(parameter), nn.Parameter(replacements[id(parameter)], requires_grad=parameter.requires_grad)
                )
                setattr(module, name, new)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and id(buffer) in replacements:
                module._buffers[name] = replacements[id(buffer)]


def refresh(model: nn.Module) -> None:
    """Set the size attributes of every module from its tensors.

    Raises:
        SurgeryError: A module of torch whose sizes this package cannot set does not fit its tensors any more.
    """
    for name, module in model.named_modules():
        for kind, update in _UPDATES.items():
            if isinstance(module, kind):
                update(name, module)
                break


def check_resizable(model: nn.Module, names: set[str]) -> dict[str, str]:
    """Tensor name -> reason, for tensors whose module has sizes of its own that cannot be set."""
    reasons = {}
    for name in names:
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, torch.jit.ScriptModule):
            reasons[name] = "its module is compiled by `torch.jit.script`: build the model from its Python code instead"
            continue
        known = isinstance(owner, tuple(_UPDATES))
        if not known and type(owner).__module__.startswith("torch.nn."):
            reasons[name] = f"`{type(owner).__name__}` cannot be resized yet"
    return reasons


def _linear(name: str, module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _bilinear(name: str, module: Any) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _convolution(name: str, module: Any) -> None:
    first, second = module.weight.shape[:2]
    if module.groups > 1 and module.groups == module.in_channels:  # depthwise: one group a channel
        multiplier = module.out_channels // module.groups
        module.groups = first if module.transposed else first // multiplier
    module.out_channels = second * module.groups if module.transposed else first
    module.in_channels = first if module.transposed else second * module.groups


def _batch_norm(name: str, module: Any) -> None:
    for tensor in (module.weight, module.running_mean):
        if tensor is not None:
            module.num_features = tensor.shape[0]


def _embedding(name: str, module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(name: str, module: Any) -> None:
    module.num_parameters = module.weight.numel()


def _recurrent(name: str, module: Any) -> None:
    weights = [part.weights(module) for part in parts(module)]
    hidden = {part.get("weight_hr", part["weight_hh"]).shape[1] for part in weights}
    if module.proj_size:
        module.proj_size = weights[0]["weight_hh"].shape[1]
    if len(hidden) != 1:
        raise SurgeryError(
            f"the layers of `{name}` would get different sizes {sorted(hidden)}, which `{type(module).__name__}` "
            "cannot hold",
            hint="use `ratio` or `count` that takes the same number from each layer",
        )
    module.hidden_size = hidden.pop()
    if module.proj_size and module.hidden_size <= module.proj_size:
        raise SurgeryError(
            f"`{name}` would keep {module.hidden_size} units, and an LSTM needs more than its proj_size, "
            f"{module.proj_size}",
            hint="lower `ratio` or `count`",
        )
    module.input_size = weights[0]["weight_ih"].shape[1]


def _step_module(name: str, module: Any) -> None:
    module.hidden_size = module.weight_hh.shape[1]
    module.input_size = module.weight_ih.shape[1]


def _nothing(name: str, module: Any) -> None:
    """Its sizes are read off its tensors."""


_UPDATES: dict[type[nn.Module], Any] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    torch.nn.modules.conv._ConvNd: _convolution,
    torch.nn.modules.batchnorm._NormBase: _batch_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    **dict.fromkeys(LAYERS, _recurrent),
    **dict.fromkeys(STEP_MODULES, _step_module),
    **dict.fromkeys(WIDE_NORMS, _nothing),
    nn.PReLU: _prelu,
}

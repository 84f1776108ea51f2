"""Folds weights that a module computes anew in every call into plain parameters.

Weight normalisation, spectral normalisation and other parametrizations make a weight out of others before each call;
in evaluation mode the result is a constant. Everything in the tool works on plain parameters, so these are folded
first. Masks of `torch.nn.utils.prune` are kept as masks: what they set to zero stays zero while the model is retrained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compressor.errors import TaskError
from compressor.nn.recurrent.layers import is_layer
from compressor.nn.transposed import replace_transposed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Folded:
    """What was folded."""

    notes: tuple[str, ...]
    """One for each kind: `weight_norm of 2 weights folded: ...`."""
    masks: dict[str, Tensor]
    """Parameter -> where it is kept (True), from masks of `torch.nn.utils.prune`."""


def fold(model: nn.Module) -> Folded:
    """Turn computed weights of `model` into parameters, in place; its outputs in evaluation mode stay the same.

    Args:
        model: In evaluation mode.

    Raises:
        TaskError: A weight differs between two calls, or is computed by code that cannot be taken off.
    """
    kinds: dict[str, list[str]] = {}
    masks: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for kind, local in (*_parametrizations(module, prefix), *_hooks(module, prefix, masks)):
            kinds.setdefault(kind, []).append(prefix + local)
        _restore_order(module)
        _refuse_computed(module, name)
    notes = [f"`{kind}` folded into plain weights: {', '.join(names)}" for kind, names in kinds.items()]
    if transposed := replace_transposed(model):
        notes.append(f"`Conv1D`, a product x W, turned into nn.Linear: {', '.join(transposed)}")
    return Folded(tuple(notes), masks)


def _parametrizations(module: nn.Module, prefix: str) -> list[tuple[str, str]]:
    """Fold what `torch.nn.utils.parametrize` computes; (kind, tensor) of each."""
    if not parametrize.is_parametrized(module):
        return []
    folded = []
    for local in list(module.parametrizations):  # type: ignore[arg-type]
        kinds = [type(part).__name__.lstrip("_") for part in module.parametrizations[local]]  # type: ignore[index]
        _refuse_random(module, local, prefix + local, kinds[-1])
        # With gradients: PyTorch makes a parameter only of a weight that wants one.
        parametrize.remove_parametrizations(module, local, leave_parametrized=True)
        folded.append((kinds[-1], local))
    return folded


def _hooks(module: nn.Module, prefix: str, masks: dict[str, Tensor]) -> list[tuple[str, str]]:
    """Fold what hooks compute before each call: older normalisations and pruning; (kind, tensor) of each."""
    folded = []
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
            folded.append(("weight_norm", hook.name))
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
            folded.append(("spectral_norm", hook.name))
        elif isinstance(hook, prune.BasePruningMethod):
            local = hook._tensor_name
            masks[prefix + local] = module.get_buffer(f"{local}_mask").bool().clone()
            prune.remove(module, local)
            folded.append(("torch.nn.utils.prune", local))
    return folded


def _restore_order(module: nn.Module) -> None:
    """Parameters in the order in which PyTorch made them; what was folded is the last one otherwise."""
    if is_layer(module):
        order = [name for name in module._flat_weights_names if name in module._parameters]
    else:
        order = [name for name in ("weight", "bias") if name in module._parameters]
    rest = [name for name in module._parameters if name not in order]
    module._parameters = {name: module._parameters[name] for name in (*order, *rest)}


def _refuse_computed(module: nn.Module, name: str) -> None:
    """A recurrent layer whose weights are set from outside, before each call, has none that could be changed."""
    if not is_layer(module):
        return
    missing = [local for local in module._flat_weights_names if local not in module._parameters]
    if missing:
        raise TaskError(
            f"`{name}.{missing[0]}` is not a parameter: some code computes it before each call (dropout on weights?)",
            hint="in `model`, give the layer plain weights: set it to a new layer with the weights that it uses in "
            "evaluation mode",
        )


def _refuse_random(module: nn.Module, local: str, name: str, kind: str) -> None:
    if not torch.equal(getattr(module, local), getattr(module, local)):
        raise TaskError(
            f"`{name}` differs from call to call (parametrized by `{kind}`) in evaluation mode",
            hint="a weight must be a constant in evaluation mode; let the parametrization look at `self.training`",
        )

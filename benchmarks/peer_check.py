"""Whether a pruned model is the original without some channels, told from its numbers alone; and Torch-Pruning."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLERANCE = 1e-8
"""Relative to the largest output, in float64."""
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LAYERS = (nn.Linear, nn.modules.conv._ConvNd, *_RECURRENT)


@torch.no_grad()
def distinct(model: nn.Module) -> nn.Module:
    """The model in float64, all its parameters and running statistics random and different numbers."""
    model = model.double().eval()
    for parameter in model.parameters():
        if parameter.dim() < 2:  # normalisations start with ones and zeros
            parameter.uniform_(0.5, 1.5)
        else:
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model


def differs(model: nn.Module, smaller: nn.Module, examples: Sequence[tuple[Tensor, ...]]) -> str:
    """Why a smaller model is not the original with the removed channels at 0; empty if it is.

    A row of a weight of which the smaller model holds no number is removed: it is 0, and so is its bias. What follows
    sees zeros, and what a function makes of them, at these places.
    """
    silent = copy.deepcopy(model)
    held = torch.cat([part.detach().flatten() for part in smaller.parameters()]).unique()
    for module in silent.modules():
        _silence(module, held)
    for example in examples:
        with torch.no_grad():
            expected, given = (_tensors(each(*example)) for each in (silent, smaller))
        if [part.shape for part in expected] != [part.shape for part in given]:
            return f"outputs of other sizes: {[tuple(part.shape) for part in given]}"
        for left, right in zip(expected, given, strict=True):
            error = float((left - right).abs().max() / left.abs().max().clamp(min=1e-9))
            if not error <= TOLERANCE:
                return f"outputs are {error:.1g} apart"
    return ""


def _tensors(outputs: Any) -> list[Tensor]:
    return [part for part in tree_leaves(outputs) if isinstance(part, Tensor)]


@torch.no_grad()
def _silence(module: nn.Module, held: Tensor) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        kept = torch.isin(parameter, held)
        if not isinstance(module, LAYERS):
            parameter.mul_(kept)
        elif parameter.dim() > 1:
            axis = 1 if getattr(module, "transposed", False) else 0
            rows = kept.movedim(axis, 0).flatten(1).any(1)
            parameter.movedim(axis, 0)[~rows] = 0
            bias = getattr(module, _bias_of(name), None)
            if bias is not None and len(bias) == len(rows):
                bias[~rows] = 0


def _bias_of(weight: str) -> str:
    return weight.replace("weight_hr", "none").replace("weight", "bias")


def pruned_by_torch_pruning(task: Any, model: nn.Module) -> nn.Module:
    """Half of the channels by Torch-Pruning's own pruner; layers that make an output are ignored."""
    import torch_pruning as tp

    smaller = copy.deepcopy(model).requires_grad_(True)
    example = task.example(1, 7)
    pruner = tp.pruner.MagnitudePruner(
        smaller,
        example if len(example) > 1 else example[0],
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=_last_layers(smaller, example),
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    smaller(*example)
    return smaller


def _last_layers(model: nn.Module, example: tuple[Tensor, ...]) -> list[nn.Module]:
    """Layers with weights whose result is as wide as an output and of which no other such layer takes anything."""
    names = dict(model.named_modules())
    outputs = _tensors(model(*example))
    reached: set[int] = set()
    pending = [part.grad_fn for part in outputs if part.grad_fn is not None]
    owners = {id(parameter): module for module in names.values() for parameter in module.parameters(recurse=False)}
    found: list[nn.Module] = []
    while pending:
        node: Any = pending.pop()
        if id(node) in reached:
            continue
        reached.add(id(node))
        leaves = [getattr(following, "variable", None) for following, _ in node.next_functions]
        below = [f for f, _ in node.next_functions if f is not None]
        inner = [getattr(g, "variable", None) for f in below for g, _ in getattr(f, "next_functions", ())]
        owned = [owners[id(part)] for part in (*leaves, *inner) if part is not None and id(part) in owners]
        layers = [module for module in owned if isinstance(module, LAYERS)]
        if layers:
            found += layers
        else:
            pending += below
    return found

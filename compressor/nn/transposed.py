"""Linear layers that keep their weight transposed, (inputs, outputs), as GPT-2 of the package `transformers` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from compressor.nn.names import parameter_owners
from compressor.nn.record import copy_parameter
from compressor.nn.structure import replace_module

if TYPE_CHECKING:
    from torch import Tensor

_CLASS = "Conv1D"
_SAME = 1e-4


def replace_transposed(model: nn.Module) -> tuple[str, ...]:
    """Turn layers of the class `Conv1D` into `nn.Linear`, in place; gives their names.

    What a layer computes is tried out, not read off its class. One whose weight belongs to other modules too stays.
    """
    owners = parameter_owners(model)
    replaced = []
    for name, module in list(model.named_modules()):
        weight = module._parameters.get("weight")
        if not name or type(module).__name__ != _CLASS or weight is None or weight.dim() != 2:
            continue
        bias = module._parameters.get("bias")
        if len(owners[id(weight)]) == 1 and _is_product(module, weight, bias):
            replace_module(model, name, _linear(weight, bias).train(module.training))
            replaced.append(name)
    return tuple(replaced)


def _is_product(module: nn.Module, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the module computes x W + b."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, weight.size(0), generator=generator).to(weight.device, weight.dtype)
    with torch.no_grad():
        try:
            found = module(x)
        except Exception:
            return False
        expected = x @ weight if bias is None else x @ weight + bias
    return found.shape == expected.shape and torch.allclose(found, expected, atol=_SAME, rtol=_SAME)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    inputs, outputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta", dtype=weight.dtype)
    layer = layer.to_empty(device=weight.device)
    copy_parameter(layer.weight, weight.t())
    layer.weight.requires_grad_(weight.requires_grad)
    if bias is not None:
        copy_parameter(layer.bias, bias)
    return layer

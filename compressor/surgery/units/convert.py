"""Replaces PyTorch's layers by ones that can lose any unit, without changing what the model computes.

A recurrent module of PyTorch has one hidden size for all its layers and directions, `nn.MultiheadAttention` one width
for everything, `nn.LayerNorm` takes its statistics over what is there. If a removal needs more than that, they are
converted first.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.recurrent.layers import has_own_forward, is_layer
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.nn.structure import replace_module, replace_record
from compressor.nn.wide_norms import has_wide_form, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class Converted:
    """The same function in other layers."""

    model: nn.Module
    masks: dict[str, Tensor]
    records: tuple[dict[str, Any], ...]
    renamed: dict[str, tuple[str, ...]]
    """Module name -> the names of the modules that took its place, where these are several."""


def convert(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    names: Iterable[str],
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> Converted:
    """Convert the named modules in a copy of `model`; masks move along to the new parameters.

    Args:
        model: Stays as it is.
        masks: By parameter.
        names: The modules.
        reasons: Module name -> why a layer of it keeps its units, if one does; errors tell it.

    Raises:
        SurgeryError: A module has a feature that the new layer lacks, or is the model itself.
    """
    model = copy.deepcopy(model)
    masks = dict(masks)
    records, renamed = [], {}
    for name in names:
        if not name:
            raise SurgeryError(
                f"a bare `{type(model).__name__}` cannot be converted to layers of different sizes",
                hint="wrap it in a module of your own",
            )
        old = model.get_submodule(name)
        if has_own_forward(old):
            reason = reasons.get(name)
            raise SurgeryError(
                f"`{name}` is a `{type(old).__name__}` with a `forward` of its own, which layers of different sizes "
                f"lack{'' if reason is None else f', and one of its layers keeps its units: {reason}'}",
                hint="with `scope: layer` and one `ratio` or `count` it keeps one size" if reason is None else None,
            )
        new = _converter(old)(old)
        old_masks = {
            local: masks.pop(f"{name}.{local}") for local, _ in old.named_parameters() if f"{name}.{local}" in masks
        }
        if old_masks:
            masks |= {f"{name}.{local}": mask for local, mask in _converted_masks(old, old_masks).items()}
        replace_module(model, name, new)
        records.append(replace_record(name, new))
        if isinstance(new, UnevenRecurrent):
            renamed[name] = tuple(f"{name}.{part}" for part, module in new.named_modules() if is_layer(module))
    return Converted(model, masks, tuple(records), renamed)


def _converter(module: nn.Module) -> Callable[[Any], Any]:
    if isinstance(module, nn.MultiheadAttention):
        return CompactMultiheadAttention.from_module
    if has_wide_form(module):
        return widened
    return UnevenRecurrent.from_module


def _converted_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks take the way that the weights take: a copy of the module carries them as ones and zeros."""
    carrier = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in carrier.named_parameters():
            parameter.copy_(masks[name]) if name in masks else parameter.fill_(1.0)
    found = {name: parameter.detach() != 0 for name, parameter in _converter(carrier)(carrier).named_parameters()}
    return {name: mask for name, mask in found.items() if not bool(mask.all())}

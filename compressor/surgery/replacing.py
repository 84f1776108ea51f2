"""Replaces one module of a model in a copy, with the record and the change that go with it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.nn.structure import replace_module, replace_record
from compressor.surgery.changes import change, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.nn.structure import Layer
    from compressor.report import Change


@dataclass(frozen=True)
class Replacement:
    """A model with a new layer in it."""

    model: nn.Module
    masks: dict[str, Tensor]
    """Without those of the layer that was replaced."""
    record: dict[str, Any]
    change: Change


def replace_in_copy(
    model: nn.Module, masks: Mapping[str, Tensor], name: str, layer: Layer, *, note: str
) -> Replacement:
    """A copy of the model in which the module called `name` is `layer`.

    Args:
        model: Left as it is.
        masks: Parameter name -> boolean mask.
        name: The module.
        layer: On the device of the model.
        note: Of the change.
    """
    old = model.get_submodule(name)
    changed = copy.deepcopy(model)
    replace_module(changed, name, layer.train(old.training))
    return Replacement(
        changed,
        {key: mask for key, mask in masks.items() if not key.startswith(f"{name}.")},
        replace_record(name, layer),
        change(name, "replaced", size_of(old.parameters()), size_of(layer.parameters()), note=note),
    )

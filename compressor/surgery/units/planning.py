"""What a removal comes to: which groups go, and what that means for every parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import RECURRENT, is_layer, parts
from compressor.surgery.trace.edges import Edges, is_edge
from compressor.surgery.trace.own_cells import own_cells
from compressor.surgery.trace.state import Trace
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.choice import Amount, Choice, Layer, Scores, choose
from compressor.surgery.units.convert import convert

if TYPE_CHECKING:
    from compressor.surgery.trace.atoms import Atoms, Ids

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Scorer = Callable[[nn.Module, Trace], Scores]
"""(model, its trace) -> the score of each group; larger = keep."""


@dataclass(frozen=True)
class Plan:
    """A removal that is decided and not yet carried out."""

    model: nn.Module
    """The original, or a copy of it in which some layers were converted to more flexible ones."""
    masks: Mapping[str, Tensor]
    records: tuple[dict[str, Any], ...]
    """Of the conversions."""
    trace: Trace
    choice: Choice
    kept: dict[tuple[str, int], Tensor]
    """(parameter or buffer name, axis) -> True = kept, for every axis that loses some."""
    edges: Edges
    """States among the model's inputs and outputs that lose units."""


def make_plan(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: tuple[Tensor, ...],
    names: Sequence[str],
    amount: Amount,
    scorer: Scorer,
    required: Sequence[str],
) -> Plan:
    """Trace the model and choose; if a layer cannot hold what is planned, convert it and plan again."""
    records: tuple[dict[str, Any], ...] = ()
    while True:
        seen, layers = _trace(model, example, names)
        scores = scorer(model, seen)
        choice = choose(layers, scores, seen.atoms.reasons(), amount, frozenset(required))
        everything = _kept(seen.atoms, choice.removed)
        kept = {key: mask for key, mask in everything.items() if not is_edge(key[0])}
        to_convert = _to_convert(model, seen, kept, choice.removed)
        if not to_convert:
            edges = Edges.from_masks({key: mask for key, mask in everything.items() if is_edge(key[0])})
            return Plan(model, masks, records, seen, choice, kept, edges)
        converted = convert(model, masks, to_convert)
        model, masks, records = converted.model, converted.masks, records + converted.records
        names = [new for name in names for new in converted.renamed.get(name, (name,))]
        required = [new for name in required for new in converted.renamed.get(name, (name,))]
        amount = amount.renamed(converted.renamed)


def _trace(model: nn.Module, example: tuple[Tensor, ...], names: Sequence[str]) -> tuple[Trace, list[Layer]]:
    """Trace the model; gives the layers of the named modules in the model's order."""
    seen = trace(model, example)
    layers: list[Layer] = []
    modules = dict(model.named_modules())
    own = own_cells(seen)
    for name in names:
        module = modules.get(name)
        if isinstance(module, RECURRENT):
            found_layers = [
                Layer(name, seen.atoms.roots(ids), layer, direction)
                for (owner, layer, direction), ids in seen.units.items()
                if owner == name
            ]
        elif isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            axis = 1 if getattr(module, "transposed", False) else 0
            ids = seen.atoms.axes.get((f"{name}.weight", axis))
            found_layers = [] if ids is None else [Layer(name, seen.atoms.roots(ids))]
        elif name in own:
            found_layers = [Layer(name, own[name])]
        else:
            raise SurgeryError(
                f"`{name}` is no recurrent layer or cell, Linear or convolution",
                hint="choose others with `targets`",
            )
        if not found_layers:
            raise SurgeryError(
                f"`{name}` is not called in the model's forward pass, so its consumers are not known",
                hint="name it under `ignore`",
            )
        layers += found_layers
    return seen, layers


def _kept(atoms: Atoms, removed: Ids) -> dict[tuple[str, int], Tensor]:
    """Which positions of which axes stay, for every axis that loses some."""
    kept = {}
    for (name, axis), ids in atoms.axes.items():
        stays = ~np.isin(atoms.roots(ids), removed)
        if not stays.any():
            raise SurgeryError(f"axis {axis} of `{name}` would be empty", hint="lower `ratio` or `count`")
        if not stays.all():
            kept[name, axis] = torch.from_numpy(stays)
    return kept


def _to_convert(model: nn.Module, trace: Trace, kept: Mapping[tuple[str, int], Tensor], removed: Ids) -> list[str]:
    """Modules that have to become more flexible before they can lose what is planned."""
    names = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            wanted = any(key.startswith(prefix) for key, _ in kept)
        elif isinstance(module, nn.LayerNorm):
            wanted = bool(np.isin(trace.atoms.roots(trace.norms.get(name, removed[:0])), removed).any())
        elif is_layer(module):
            locals_ = [part.names.get("weight_hr", part.names["weight_hh"]) for part in parts(module)]
            masks = [kept.get((prefix + local, 1)) for local in locals_]
            wanted = len({module.hidden_size if mask is None else int(mask.sum()) for mask in masks}) > 1
        else:
            wanted = False
        if wanted:
            names.append(name)
    return names

"""What a removal comes to: which groups go, and what that means for every parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import RECURRENT, is_layer, part_suffix, parts
from compressor.nn.wide_norms import has_wide_form
from compressor.report import Skip
from compressor.surgery.trace.edges import Cut, Edges, is_edge
from compressor.surgery.trace.own_cells import own_cells
from compressor.surgery.trace.seams import axis_of_units
from compressor.surgery.trace.state import Crossing, Trace
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.choice import Amount, Choice, Layer, Scores
from compressor.surgery.units.choosing import choose, nothing_left
from compressor.surgery.units.convert import convert
from compressor.surgery.units.failures import failing

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    seams: tuple[Edges, ...] = ()
    """The same of each module that becomes a file of its own."""


def make_plan(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: tuple[Tensor, ...],
    names: Sequence[str],
    amount: Amount,
    scorer: Scorer,
    required: Sequence[str],
    *,
    whole_blocks: bool = False,
) -> Plan:
    """Trace the model and choose; if a layer cannot hold what is planned, convert it and plan again.

    With `whole_blocks` a view that takes features apart is taken to fix the size of its blocks, see `trace.parts`.

    Raises:
        FailedRemoval: What was chosen cannot go.
        SurgeryError: Nothing can be chosen, or a required layer cannot shrink.
    """
    records: tuple[dict[str, Any], ...] = ()
    while True:
        seen = trace(model, example, whole_blocks=whole_blocks)
        layers, unknown = candidate_layers(model, seen, names, frozenset(required))
        scores = scorer(model, seen)
        choice = choose(layers, scores, seen.atoms.reasons(), amount, frozenset(required))
        choice = Choice(choice.removed, (*unknown, *choice.skipped))
        with failing():
            everything = _kept(seen.atoms, choice.removed)
            kept = {key: mask for key, mask in everything.items() if not is_edge(key[0])}
            to_convert = _to_convert(model, seen, kept, choice.removed)
            if not to_convert:
                masks_of_edges = {key: mask for key, mask in everything.items() if is_edge(key[0])}
                edges = Edges.from_masks(masks_of_edges, seen.carried, seen.read_of_inputs)
                return Plan(model, masks, records, seen, choice, kept, edges, _seams(seen, choice.removed))
            converted = convert(model, masks, to_convert, {skip.name: skip.reason for skip in choice.skipped})
        model, masks, records = converted.model, converted.masks, records + converted.records
        names = [new for name in names for new in converted.renamed.get(name, (name,))]
        required = [new for name in required for new in converted.renamed.get(name, (name,))]
        amount = amount.renamed(converted.renamed)


def candidate_layers(
    model: nn.Module, seen: Trace, names: Sequence[str], required: frozenset[str]
) -> tuple[list[Layer], list[Skip]]:
    """The layers of the named modules in the model's order, and those without units that could go."""
    layers: list[Layer] = []
    skipped: list[Skip] = []
    modules = dict(model.named_modules())
    own = own_cells(seen)
    for name in names:
        found_layers = _layers_of(name, modules.get(name), seen, own)
        layers += found_layers
        if found_layers:
            continue
        reason = _why_none(name, modules[name], seen)
        if name in required:
            raise SurgeryError(f"`{name}` {reason}", hint=f"name `{name}` under `ignore`")
        skipped.append(Skip(name=name, reason=f"it {reason}"))
    if not layers:
        raise nothing_left(skipped)
    return layers, skipped


def _layers_of(name: str, module: nn.Module | None, seen: Trace, own: Mapping[str, Ids]) -> list[Layer]:
    roots = seen.atoms.roots
    if isinstance(module, RECURRENT):
        found = [(key, ids) for key, ids in seen.units.items() if key[0] == name]
        units = [Layer(name, roots(ids), layer, direction) for (_, layer, direction), ids in found]
        return units + [
            Layer(name, roots(ids), layer, direction, unit="projected output", optional=True)
            for (_, layer, direction), _ in found
            if (ids := seen.atoms.axes.get((f"{name}.weight_hr_{part_suffix(layer, direction)}", 0))) is not None
        ]
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        ids = seen.atoms.axes.get((f"{name}.weight", output_axis(module)))
        return [] if ids is None else [Layer(name, roots(ids))]
    if name in own:
        return [Layer(name, own[name])]
    raise SurgeryError(
        f"`{name}` is not a recurrent layer or cell, Linear or convolution", hint="choose others with `targets`"
    )


def output_axis(module: Any) -> int:
    """The axis of the weight of a Linear or convolution along which its units lie.

    A transposed one with one channel in each group owns its inputs.
    """
    if not getattr(module, "transposed", False):
        return 0
    return int(module.groups == 1 or module.weight.size(1) > 1)


def _why_none(name: str, module: nn.Module, seen: Trace) -> str:
    weight = getattr(module, "weight", None)
    first = seen.parameter_name(weight)
    if not isinstance(module, RECURRENT) and first not in (None, f"{name}.weight"):
        return f"shares its weight with `{first}`, whose rows stay"
    if isinstance(module, RECURRENT) or not any(key.rpartition(".")[0] == name for key, _ in seen.atoms.axes):
        return "is not called in the model's forward pass, so its consumers are not known"
    return "has one output, which stays"


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


def _seams(trace: Trace, removed: Ids) -> tuple[Edges, ...]:
    """What is cut of the tensors that enter modules which become files of their own.

    One that carries other units in another call, or along several axes, is left alone: the model's own code hands it
    from module to module, so it comes with the right size.
    """
    cuts: dict[tuple[str, int], set[Cut | None]] = {}
    for crossing in trace.crossings:
        if crossing.enters:
            cuts.setdefault((crossing.module, crossing.index), set()).add(_cut(trace, crossing, removed))
    by_module: dict[str, list[Cut]] = {}
    for (module, _), own in cuts.items():
        [cut, *others] = own
        if cut is not None and not others:
            by_module.setdefault(module, []).append(cut)
    return tuple(Edges(tuple(own), module=module) for module, own in by_module.items())


def _cut(trace: Trace, crossing: Crossing, removed: Ids) -> Cut | None:
    """What is cut of one tensor; None if nothing is, or its layers lose unequal numbers of units."""
    found = axis_of_units(crossing.labels)
    if found is None:
        return None
    axis, ids = found
    stays = np.atleast_2d(~np.isin(trace.atoms.roots(ids), removed))
    rows = tuple(tuple(row.nonzero()[0].tolist()) for row in stays)
    if stays.all() or len({len(row) for row in rows}) > 1:
        return None
    return Cut(crossing.index, axis, ids.shape[-1], rows[0], rows=rows if ids.ndim > 1 else ())


def lost_features(trace: Trace, name: str, removed: Ids) -> NDArray[np.bool_]:
    """Which features of a normalisation go."""
    return np.isin(trace.atoms.roots(trace.norms[name].positions), removed)


def _to_convert(model: nn.Module, trace: Trace, kept: Mapping[tuple[str, int], Tensor], removed: Ids) -> list[str]:
    """Modules that have to become more flexible before they can lose what is planned."""
    names = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            wanted = any(key.startswith(prefix) for key, _ in kept)
        elif has_wide_form(module):
            wanted = name in trace.norms and bool(lost_features(trace, name, removed).any())
        elif is_layer(module):
            locals_ = [part.names.get("weight_hr", part.names["weight_hh"]) for part in parts(module)]
            masks = [kept.get((prefix + local, 1)) for local in locals_]
            wanted = len({module.hidden_size if mask is None else int(mask.sum()) for mask in masks}) > 1
        else:
            wanted = False
        if wanted:
            names.append(name)
    return names

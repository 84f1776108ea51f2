"""The groups of weights that training is to make small: those of the units which may be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from compressor.surgery.equivalence import evaluating_on_cpu
from compressor.surgery.trace.edges import is_edge
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.choosing import choose, usable_layers
from compressor.surgery.units.planning import candidate_layers
from compressor.surgery.units.scores import magnitude
from compressor.training.group_penalty import GroupAxis, Groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.report import Skip
    from compressor.surgery.trace.atoms import Atoms, Ids
    from compressor.surgery.units.choice import Amount


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class PenalisedUnits:
    """The groups, and the layers that were left alone."""

    groups: Groups
    skipped: tuple[Skip, ...]


def penalised_units(
    model: nn.Module, example: tuple[Tensor, ...], names: Sequence[str], amount: Amount, required: Sequence[str]
) -> PenalisedUnits:
    """All weights of each unit that may go from the named layers, and which of them would go now.

    Args:
        model: Left untouched.
        example: Inputs that are traced.
        names: Layers and own cells, as for `removal.prune`.
        amount: How much is to go; the units with the smallest norms do.
        required: Those of `names` which must have units that can go.

    Raises:
        SurgeryError: No unit can go, or none of a required layer.
    """
    required_set = frozenset(required)
    with evaluating_on_cpu(model) as original:
        seen = trace(original, tuple(part.cpu() for part in example))
        layers, unknown = candidate_layers(original, seen, names, required_set)
        pinned = seen.atoms.reasons()
        choice = choose(layers, magnitude(2)(original, seen), pinned, amount, required_set)
        usable, _ = usable_layers(layers, pinned, required_set)
        owners = {
            group: number
            for number, layer in reversed(list(enumerate(usable)))  # of a tied group the first layer is the owner
            for group in layer.groups.tolist()
            if group not in pinned
        }
        axes, scales = _axes(original, seen.atoms, {group: number for number, group in enumerate(owners)})
    going = torch.tensor([group in set(choice.removed.tolist()) for group in owners])
    groups = Groups(torch.tensor(list(owners.values())), going, axes, scales)
    return PenalisedUnits(groups, (*unknown, *choice.skipped))


def _axes(model: nn.Module, atoms: Atoms, numbers: dict[int, int]) -> tuple[list[GroupAxis], list[GroupAxis]]:
    """Where the groups are in the trained weights, and in the scales of batch normalisations."""
    parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
    axes: list[GroupAxis] = []
    scales: list[GroupAxis] = []
    for (name, axis), ids in atoms.axes.items():
        if is_edge(name) or name not in parameters:
            continue
        item = GroupAxis(name, axis, _numbers(atoms.roots(ids), numbers))
        if not bool((item.groups >= 0).any()):
            continue
        owner, _, local = name.rpartition(".")
        if parameters[name].dim() > 1:
            axes.append(item)
        elif local == "weight" and isinstance(model.get_submodule(owner), BATCH_NORMS):
            scales.append(item)
    return axes, scales


def _numbers(roots: Ids, numbers: dict[int, int]) -> Tensor:
    return torch.from_numpy(np.array([numbers.get(root, -1) for root in roots.tolist()], np.int64))

"""Lets layers share weights: one tensor under several names, in the model, in its checkpoint and in its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.record import of_another_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.surgery.depth.stacks import Layer

KIND = "tie"
"""Of the records: `{"kind": "tie", "groups": [["layers.0.weight", "layers.1.weight"], ...]}`."""
Share = Literal["matrices", "all"]


@dataclass(frozen=True)
class Group:
    """Layers that share weights."""

    stack: str
    layers: tuple[Layer, ...]
    """Of one structure, in order."""
    roles: tuple[str, ...]
    """Names inside a layer of the weights that are shared."""

    @property
    def name(self) -> str:
        """`layers: 0, 1`."""
        indices = ", ".join(str(layer.index) for layer in self.layers)
        return f"{self.stack}: {indices}" if self.stack else indices

    def names(self, role: str) -> list[str]:
        """The full names under which a weight is shared."""
        return [layer.parameters[role] for layer in self.layers]

    def tied_names(self) -> list[list[str]]:
        """For each weight that is shared, its names."""
        return [self.names(role) for role in self.roles]


def group_of(model: nn.Module, stack: str, layers: Sequence[Layer], share: Share) -> Group:
    """These layers as a group; with `matrices` vectors (biases, norms) stay each layer's own."""
    first = layers[0].parameters
    roles = [role for role, name in first.items() if share == "all" or model.get_parameter(name).dim() > 1]
    return Group(stack, tuple(layers), tuple(roles))


def is_tied(model: nn.Module, group: Group) -> bool:
    """Whether the layers share all of these weights already."""
    return all(len({id(model.get_parameter(name)) for name in names}) == 1 for names in group.tied_names())


def distinct(model: nn.Module, group: Group) -> list[Tensor]:
    """The weights of the layers of a group, each once."""
    names = [name for layer in group.layers for name in layer.parameters.values()]
    return list({id(parameter): parameter for parameter in map(model.get_parameter, names)}.values())


def starts(model: nn.Module, group: Group) -> dict[str, dict[str, Tensor]]:
    """What the shared weights may start from: `mean`, and `layer 3` for each layer -> value of each role."""
    found: dict[str, dict[str, Tensor]] = {"mean": {}}
    for role in group.roles:
        values = [model.get_parameter(name).detach() for name in group.names(role)]
        found["mean"][role] = mean(values)
        for layer, value in zip(group.layers, values, strict=True):
            found.setdefault(f"layer {layer.index}", {})[role] = value.clone()
    return found


def mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape; exactly the first one if all are equal."""
    first = values[0]
    return first + torch.stack([value - first for value in values]).mean(0)


def share(model: nn.Module, groups: Sequence[Sequence[str]]) -> None:
    """Make the parameters of each group of names one: the first, wherever the model holds any of them, in place.

    It is trained if any of them was.
    """
    owners: dict[int, nn.Parameter] = {}

    def owner_of(parameter: nn.Parameter) -> nn.Parameter:
        while id(parameter) in owners:
            parameter = owners[id(parameter)]
        return parameter

    for names in groups:
        owner, *others = [owner_of(model.get_parameter(name)) for name in names]
        for other in others:
            if owner_of(other) is not owner:
                owner.requires_grad_(owner.requires_grad or other.requires_grad)
                owners[id(other)] = owner
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in owners:
                setattr(module, name, owner_of(parameter))


def fill(model: nn.Module, group: Group, values: Mapping[str, Tensor]) -> None:
    """Give the shared weights of a group values by role, in place."""
    with torch.no_grad():
        for role, value in values.items():
            model.get_parameter(group.names(role)[0]).copy_(value)


def masks_agree(group: Group, masks: Mapping[str, Tensor]) -> bool:
    """Whether the layers' masks of the shared weights are the same."""
    for names in group.tied_names():
        known = [masks.get(name) for name in names]
        first = known[0]
        if any((mask is None) != (first is None) for mask in known):
            return False
        if first is not None and not all(mask is not None and mask.equal(first) for mask in known):
            return False
    return True


def carried_masks(group: Group, start: str, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of the shared weights under all their names: those of the layer that they start from.

    Raises:
        MethodError: They start from the mean of layers whose masks differ.
    """
    if start == "mean" and not masks_agree(group, masks):
        raise MethodError(
            f"the layers `{group.name}` have different weights pruned, and their mean has other zeros",
            hint="share weights before single weights are pruned, or set `start: first`",
        )
    place = 0 if start == "mean" else [f"layer {layer.index}" for layer in group.layers].index(start)
    carried: dict[str, Tensor] = {}
    for names in group.tied_names():
        mask = masks.get(names[place])
        if mask is not None:
            carried |= dict.fromkeys(names, mask)
    return carried


def record(groups: Sequence[Group]) -> dict[str, Any]:
    """The JSON record of shared weights."""
    return {"kind": KIND, "groups": [names for group in groups for names in group.tied_names()]}


def apply_tie_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Share the weights that a record names, in place.

    Raises:
        CheckpointError: It names something that the model does not have, or tensors of several shapes.
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    groups = record.get("groups")
    if not isinstance(groups, list) or not all(_is_group(names, known) for names in groups):
        raise of_another_task("the record shares weights between layers that this model does not have")
    share(model, groups)


def _is_group(names: Any, known: Mapping[str, Tensor]) -> bool:
    if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
        return False
    return len({(known[name].shape, known[name].dtype) for name in names}) == 1

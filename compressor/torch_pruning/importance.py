"""What a group of channels is worth, recurrent layers included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from compressor.nn.recurrent.layers import RECURRENT, parts
from compressor.torch_pruning.pruners import RecurrentPruner

if TYPE_CHECKING:
    from compressor.nn.recurrent.cells import RecurrentLayer, StepModule

Parts = list[tuple[Tensor, list[int]]]


class RecurrentMagnitudeImportance(GroupMagnitudeImportance):  # type: ignore[misc]
    r"""Torch-Pruning's group magnitude, :math:`\sum |w|^p` for each part of a group, in which recurrent layers count.

    A recurrent layer's part is the sum over the unit's rows in every gate of every layer and its columns of the
    recurrent matrix, or over the columns of its input matrix. Options as of `GroupMagnitudeImportance`; Torch-Pruning's
    own passes over recurrent layers, and skips a group without a Linear or convolution without a word.
    """

    def __call__(self, group: Any) -> Tensor | None:
        """Gives the worth of each channel of the group's first layer."""
        self._recurrent: Parts = [
            (self._of_layer(item.dep, item.idxs), item.root_idxs)
            for item in group.items
            if isinstance(item.dep.target.module, RECURRENT)
        ]
        plain: Tensor | None = super().__call__(group)
        if plain is not None or not self._recurrent:
            return plain
        result: Tensor = self._normalize(self._reduce([], []), self.normalizer)
        return result

    def _reduce(self, group_imp: list[Tensor], group_idxs: list[list[int]]) -> Tensor:
        worths = [*group_imp, *(worth for worth, _ in self._recurrent)]
        result: Tensor = super()._reduce(worths, [*group_idxs, *(indices for _, indices in self._recurrent)])
        return result

    def _of_layer(self, dep: Any, idxs: list[int]) -> Tensor:
        layer = dep.target.module
        takes_in = dep.handler.__name__ == RecurrentPruner.prune_in_channels.__name__
        worth = _inputs(layer, self.p) if takes_in else _units(layer, self.p)
        return worth[torch.as_tensor(idxs, device=worth.device)]


def _inputs(layer: RecurrentLayer | StepModule, power: int) -> Tensor:
    """(I,): the columns of the first layer's input matrices."""
    first = [getattr(layer, part.names["weight_ih"]) for part in parts(layer) if part.layer == 0]
    return torch.stack([weight.detach().abs().pow(power).sum(0) for weight in first]).sum(0)


def _units(layer: RecurrentLayer | StepModule, power: int) -> Tensor:
    """(D * S,): all weights of an output in the layer, those of all layers and directions together.

    PyTorch's layers lose a unit in all layers and directions at once, so the worth is the same in each direction.
    """
    size = getattr(layer, "proj_size", 0) or layer.hidden_size
    total = torch.zeros(size, device=next(layer.parameters()).device)
    for part in parts(layer):
        for local in part.names.values():
            weight = getattr(layer, local).detach().abs().pow(power)
            for axis, holds in enumerate(part.axes(local)):
                rows_are_outputs = holds == "gates" and size == layer.hidden_size
                if weight.dim() > 1 and (holds == "outputs" or rows_are_outputs or (holds == "inputs" and part.layer)):
                    total += weight.sum(1 - axis).view(-1, size).sum(0)
    return total.repeat(RecurrentPruner().get_out_channel_groups(layer))

"""Which units of a recurrent layer's parts are kept, and their weights in a smaller part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import directions, part_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.nn.recurrent.cells import Axis, Cell, RecurrentLayer, Weights
    from compressor.nn.recurrent.compact import CompactRecurrent

PartKey = tuple[int, int]
"""(layer, direction); direction 0 runs forward in time, 1 backward."""


def refuse_projections(module: RecurrentLayer | CompactRecurrent) -> None:
    """Raise a `SurgeryError` for an LSTM with `proj_size`."""
    if module.proj_size:
        raise SurgeryError(
            f"an LSTM with proj_size={module.proj_size} cannot have layers of different sizes",
            hint="remove the same number of units from each of its layers",
        )


def complete_masks(module: RecurrentLayer | CompactRecurrent, kept: Mapping[PartKey, Tensor]) -> list[list[Tensor]]:
    """The mask (H,) of every part, layer by layer; True = kept.

    Raises:
        SurgeryError: A mask does not fit, or keeps nothing, or belongs to no part.
    """
    masks = [
        [
            mask_of(
                f"layer {layer}, direction {direction}",
                kept.get((layer, direction)),
                part_weights(module, layer, direction)["weight_hh"].size(1),
            )
            for direction in range(directions(module))
        ]
        for layer in range(module.num_layers)
    ]
    unknown = set(kept) - {(layer, direction) for layer, row in enumerate(masks) for direction in range(len(row))}
    if unknown:
        raise SurgeryError(f"the module has no layer and direction {sorted(unknown)}")
    return masks


def mask_of(what: str, mask: Tensor | None, size: int) -> Tensor:
    """A mask of that size, on the CPU; all True by default.

    Raises:
        SurgeryError: It does not fit, or keeps nothing.
    """
    if mask is None:
        return torch.ones(size, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != (size,):
        raise SurgeryError(
            f"the mask of {what} is {mask.dtype} of shape {tuple(mask.shape)}; {size} truth values are needed"
        )
    if not bool(mask.any()):
        raise SurgeryError(f"nothing would be left of {what}", hint="lower `ratio` or `count`")
    return mask.cpu()


def copy_part(cell: Cell, source: Weights, target: Weights, units: Tensor, inputs: Tensor) -> None:
    """Copy what belongs to the kept units and inputs, in place.

    Args:
        cell: Of both.
        source: The weights of a part.
        target: Those of the smaller part.
        units: Mask (H,), True = kept.
        inputs: Mask (I,).
    """
    device = source["weight_ih"].device
    kept: dict[Axis, Tensor] = {
        "gates": units.repeat(cell.gates.count),
        "units": units,
        "outputs": units,
        "inputs": inputs,
    }
    places = {axis: mask.nonzero().flatten().to(device) for axis, mask in kept.items()}
    with torch.no_grad():
        for parameter in cell.parameters:
            if parameter.name in source:
                old = chosen = source[parameter.name]
                for index, axis in enumerate(parameter.axes):
                    chosen = chosen.index_select(index, places[axis])
                target[parameter.name].copy_(chosen)
                target[parameter.name].requires_grad_(old.requires_grad)

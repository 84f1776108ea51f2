"""How units and inputs leave a recurrent layer, in the form that Torch-Pruning asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch_pruning
from torch_pruning.pruner.function import BasePruningFunc

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import RECURRENT, directions, has_own_forward, is_layer, parts
from compressor.torch_pruning.tracing import forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compressor.nn.recurrent.cells import Axis, RecurrentLayer, StepModule


def recurrent(model: nn.Module) -> dict[str, Any]:
    """Keyword arguments for any pruner of Torch-Pruning, which make it handle the recurrent layers of a model.

    Args:
        model: The model that is pruned.

    Returns:
        `customized_pruners`, `forward_fn` and `root_module_types`; `DependencyGraph.build_dependency` takes the first
        two. A layer that is a subclass with a `forward` of its own is left to Torch-Pruning.

    Raises:
        SurgeryError: The model has no recurrent layer that can be handled.
    """
    layers = [module for module in model.modules() if isinstance(module, RECURRENT) and not has_own_forward(module)]
    if not layers:
        raise SurgeryError(
            "the model has no recurrent layer of PyTorch", hint="build the pruner without `recurrent(model)`"
        )
    return {
        "customized_pruners": {type(layer): RecurrentPruner() for layer in layers},
        "forward_fn": forward,
        "root_module_types": [torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR, *RECURRENT],
    }


class RecurrentPruner(BasePruningFunc):  # type: ignore[misc]
    """Takes units and inputs out of PyTorch's recurrent layers and cells, with any number of layers and directions.

    Output channels are the features of the layer's outputs: H units (P projected ones with `proj_size`), twice as many
    if it is bidirectional. PyTorch's layers have one size for all of their layers and directions, so a unit goes from
    each of them.
    """

    TARGET_MODULES = RECURRENT

    def get_out_channels(self, layer: RecurrentLayer | StepModule) -> int:
        """Features of the outputs."""
        return _outputs(layer) * self.get_out_channel_groups(layer)

    def get_in_channels(self, layer: RecurrentLayer | StepModule) -> int:
        """Features of the inputs."""
        return layer.input_size

    def get_out_channel_groups(self, layer: RecurrentLayer | StepModule) -> int:
        """Directions: both lose the same number."""
        return directions(layer) if is_layer(layer) else 1

    def prune_out_channels(self, layer: RecurrentLayer | StepModule, idxs: Sequence[int]) -> nn.Module:
        """Take the units with these indices out of every layer and direction.

        Raises:
            SurgeryError: The directions would lose different units.
        """
        size = _outputs(layer)
        lost = _same_in_all_directions(layer, idxs, size)
        kept = [index for index in range(size) if index not in lost]
        outputs = [
            index + size * direction for direction in range(self.get_out_channel_groups(layer)) for index in kept
        ]
        projected = size != layer.hidden_size
        for part in parts(layer):
            rows: dict[Axis, list[int]] = {"outputs": kept}
            if not projected:
                rows["units"] = kept
                rows["gates"] = [index + size * gate for gate in range(part.cell.gates.count) for index in kept]
            if part.layer:
                rows["inputs"] = outputs
            for local in part.names.values():
                self._cut(layer, local, [rows.get(axis) for axis in part.axes(local)])
        setattr(layer, "proj_size" if projected else "hidden_size", len(kept))
        return layer

    def prune_in_channels(self, layer: RecurrentLayer | StepModule, idxs: Sequence[int]) -> nn.Module:
        """Take these input features out of the first layer."""
        kept = sorted(set(range(layer.input_size)) - set(idxs))
        for part in parts(layer):
            if part.layer == 0:
                self._cut(layer, part.names["weight_ih"], [None, kept])
        layer.input_size = len(kept)
        return layer

    def _cut(self, layer: nn.Module, name: str, rows: Sequence[list[int] | None]) -> None:
        for axis, kept in enumerate(rows):
            if kept is not None:
                setattr(layer, name, self._prune_parameter_and_grad(getattr(layer, name), kept, axis))


def _outputs(layer: RecurrentLayer | StepModule) -> int:
    """Features of h."""
    return getattr(layer, "proj_size", 0) or layer.hidden_size


def _same_in_all_directions(layer: RecurrentLayer | StepModule, idxs: Sequence[int], size: int) -> set[int]:
    lost = {index % size for index in idxs}
    count = directions(layer) if is_layer(layer) else 1
    if {index + size * direction for index in lost for direction in range(count)} != set(idxs):
        raise SurgeryError(
            f"the directions of a bidirectional {type(layer).__name__} would lose different units",
            hint=f"remove index i together with i + {size}: PyTorch's layer has one size for both directions",
        )
    return lost

"""Which modules are recurrent, which cell each of them computes, and where its parameters are.

A **layer** runs over whole sequences (PyTorch's `RNN`, `GRU` and `LSTM`, and our compact layers), a **step module**
over one step (`RNNCell`, `GRUCell`, `LSTMCell`). Both consist of **parts**: one layer in one direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from compressor.nn.recurrent.cells import CELLS, Axis, Cell, RecurrentLayer, StepModule
from compressor.nn.recurrent.compact import CompactRecurrent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

LAYERS: tuple[type[RecurrentLayer], ...] = tuple(dict.fromkeys(cell.layer_type for cell in CELLS.values()))
"""PyTorch's modules for whole sequences."""
STEP_MODULES: tuple[type[StepModule], ...] = tuple(dict.fromkeys(cell.step_type for cell in CELLS.values()))
"""PyTorch's modules for one step."""
RECURRENT: tuple[type[nn.Module], ...] = (*LAYERS, *STEP_MODULES)


@dataclass(frozen=True)
class Part:
    """One layer in one direction of a recurrent module of PyTorch."""

    layer: int
    direction: int
    """0 runs forward in time, 1 backward."""
    cell: Cell
    names: Mapping[str, str]
    """Parameter of the cell -> its name in the module, such as `weight_hh` -> `weight_hh_l0_reverse`; in the cell's
    order, without what the module lacks."""

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The tensors in a module, by the cell's names."""
        return {name: getattr(module, local) for name, local in self.names.items()}

    def axes(self, local: str) -> tuple[Axis, ...]:
        """What the axes of the parameter of that name in the module hold."""
        return next(item.axes for item in self.cell.parameters if self.names.get(item.name) == local)


def is_layer(module: nn.Module | None) -> TypeGuard[RecurrentLayer]:
    """Whether it is a recurrent layer of PyTorch's for whole sequences."""
    return isinstance(module, LAYERS)


def is_step_module(module: nn.Module | None) -> TypeGuard[StepModule]:
    """Whether it is a recurrent module of PyTorch's for one step."""
    return isinstance(module, STEP_MODULES)


def has_own_forward(module: nn.Module) -> bool:
    """Whether a subclass of one of PyTorch's recurrent modules has a `forward` of its own around PyTorch's."""
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return isinstance(module, RECURRENT) and owner not in RECURRENT


def cell_of(module: nn.Module) -> Cell:
    """The cell that a recurrent module computes.

    Raises:
        TypeError: The module is not recurrent.
    """
    if isinstance(module, CompactRecurrent):
        return module.cell
    for cell in CELLS.values():
        if cell.owns(module):
            return cell
    raise TypeError(f"`{type(module).__name__}` is not a recurrent module")


def directions(module: RecurrentLayer | CompactRecurrent) -> int:
    """1, or 2 for a bidirectional layer."""
    return 2 if module.bidirectional else 1


def part_suffix(layer: int, direction: int) -> str:
    """What PyTorch's parameter names of a layer in a direction end in: `l0`, `l0_reverse`."""
    return f"l{layer}" + ("_reverse" if direction else "")


def parts(module: RecurrentLayer | StepModule) -> list[Part]:
    """Layer by layer, the forward direction first: the order of the first axis of `h_n`."""
    cell = cell_of(module)
    if is_step_module(module):
        return [Part(0, 0, cell, _names(cell, module, ""))]
    assert is_layer(module)
    return [
        Part(layer, direction, cell, _names(cell, module, "_" + part_suffix(layer, direction)))
        for layer in range(module.num_layers)
        for direction in range(directions(module))
    ]


def _names(cell: Cell, module: nn.Module, suffix: str) -> dict[str, str]:
    """The parameters that a module has; those that are computed from others are there too."""
    names = {item.name: item.name + suffix for item in cell.parameters}
    return {name: local for name, local in names.items() if getattr(module, local, None) is not None}


def part_weights(module: RecurrentLayer | CompactRecurrent, layer: int, direction: int) -> dict[str, Tensor]:
    """The weights of one layer in one direction, of PyTorch's layers and of a compact one that is made of them."""
    if isinstance(module, CompactRecurrent):
        part = module.part(layer, direction)
        assert is_layer(part)
        return part_weights(part, 0, 0)
    return parts(module)[layer * directions(module) + direction].weights(module)


def state_widths(module: Any) -> list[int]:
    """The features of each state of a recurrent module whose layers have one size: of h what it gives out."""
    outputs = getattr(module, "proj_size", 0) or module.hidden_size
    return [outputs if name == "h" else module.hidden_size for name in cell_of(module).states]


def recurrent_modules(model: nn.Module) -> dict[str, RecurrentLayer]:
    """Name -> module, for every recurrent layer of PyTorch's in a model."""
    return {name: module for name, module in model.named_modules() if is_layer(module)}

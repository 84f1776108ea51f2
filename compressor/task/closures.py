"""Functions that a model keeps beside its layers: `self.mlp = lambda x: layers.down(layers.up(x))`.

A copy of a module has the very same function, and so computes with the layers of the original: a smaller copy would not
be smaller. These functions are wrapped, so that a copy has one that knows the layers of the copy.
"""

from __future__ import annotations

import copy
from types import CellType, FunctionType
from typing import Any

from torch import Tensor, nn


class Closure:
    """A function that is copied with what it holds."""

    def __init__(self, function: FunctionType) -> None:
        """Of a function with modules or tensors in its closure or its defaults."""
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Closure:
        """With the copies of what it holds."""
        old = self.function
        cells = tuple(CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in old.__closure__ or ())
        new = FunctionType(old.__code__, old.__globals__, old.__name__, copy.deepcopy(old.__defaults__, memo), cells)
        new.__kwdefaults__ = copy.deepcopy(old.__kwdefaults__, memo)
        return Closure(new)


def bind_closures(model: nn.Module) -> None:
    """Wrap the functions that hold layers or weights among the attributes of every module, in place."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and any(_holds(held) for held in _held(value)):
                vars(module)[name] = Closure(value)


def _held(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _holds(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds(part) for part in value)
    return isinstance(value, (nn.Module, Tensor))

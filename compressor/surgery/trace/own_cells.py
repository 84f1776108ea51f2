"""The recurrent cells that a model's own Python code makes out of Linear layers and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compressor.nn.names import with_holders
from compressor.nn.own_code import is_own

if TYPE_CHECKING:
    from torch import nn

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

_OUR_LAYERS = "compressor.nn.recurrent."


def own_cells(trace: Trace) -> dict[str, Ids]:
    """Name of a module -> the groups of the units that it carries from step to step, by their representatives.

    A unit belongs to the module of the model's code that holds both a parameter which takes the state in and one which
    makes it; see `feedback`. Units of PyTorch's recurrent layers and cells are not among them.
    """
    atoms = trace.atoms
    taken = np.unique(np.concatenate([np.zeros(1, np.int64), *(atoms.roots(ids) for ids in trace.units.values())]))
    made: dict[str, list[Ids]] = {}
    for (name, axis), ids in atoms.axes.items():
        if atoms.roles[name, axis] == "out" and (owner := _owner(trace.model, name)) is not None:
            made.setdefault(owner, []).append(atoms.roots(ids))
    carried: dict[str, list[Ids]] = {}
    for parameter, states in trace.feedback.states.items():
        owner = _owner(trace.model, parameter)
        if owner in made:
            carried.setdefault(owner, []).extend(atoms.roots(ids) for ids in states)
    cells = {}
    for owner, states in carried.items():
        groups = np.intersect1d(np.concatenate(states), np.concatenate(made[owner]))
        groups = np.setdiff1d(groups, taken)
        if len(groups):
            cells[owner] = groups
    return cells


def uses(trace: Trace, cell: str) -> int:
    """How often the parameters that take in the states of a cell were used."""
    parameters = [name for name in trace.feedback.states if _owner(trace.model, name) == cell]
    return sum(trace.feedback.counts.get(name, 0) for name in parameters)


def _owner(model: nn.Module, parameter: str) -> str | None:
    """The innermost module of the model's own code that holds a parameter; the model itself is called ``.

    None for a parameter of a recurrent layer of this package: its steps are no cell of the model's.
    """
    for path in (*with_holders(parameter)[1:], ""):
        if type(model.get_submodule(path)).__module__.startswith(_OUR_LAYERS):
            return None
        if is_own(model.get_submodule(path)):
            return path
    return None

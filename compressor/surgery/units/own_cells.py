"""Which modules of a model are recurrent cells in Python, and what of them is not to be chosen beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.surgery.equivalence import evaluating_on_cpu
from compressor.surgery.trace.own_cells import own_cells, uses
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.planning import CONVOLUTIONS, output_axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace


@dataclass(frozen=True)
class OwnCell:
    """A recurrent cell of the model's own code."""

    units: int
    """How many units it carries from step to step."""
    parts: tuple[str, ...]
    """Layers that make nothing but these units: its gates."""


def find_own_cells(
    model: nn.Module, example: tuple[Tensor, ...], longer: tuple[Tensor, ...] | None = None
) -> dict[str, OwnCell]:
    """Name of a module -> what is known of the cell that its code computes.

    A cell runs once a position. A block of layers that is called several times whatever the length of the sequence, as
    in a Transformer that shares its weights, takes in what it gave as well, but is none.

    Args:
        model: Left as it is.
        example: Inputs of at least three steps: a state is known by what comes back in the third.
        longer: Inputs of more steps; None if there are none, and blocks cannot be told from cells.

    Returns:
        Nothing for a model that cannot be traced; the step that needs the trace says why.
    """
    with evaluating_on_cpu(model) as original:
        try:
            seen = trace(original, tuple(part.cpu() for part in example))
            cells = own_cells(seen)
        except SurgeryError:
            return {}
        if cells and longer is not None:
            cells = _that_follow_time(cells, original, seen, tuple(part.cpu() for part in longer))
        made = {
            name: np.unique(seen.atoms.roots(ids))
            for name, module in original.named_modules()
            if isinstance(module, (nn.Linear, *CONVOLUTIONS))
            and (ids := seen.atoms.axes.get((full_name(name, "weight"), output_axis(module)))) is not None
        }
        return {
            cell: OwnCell(
                len(groups),
                tuple(
                    name
                    for name, its in made.items()
                    if name.startswith(f"{cell}." if cell else "") and bool(np.isin(its, groups).all())
                ),
            )
            for cell, groups in cells.items()
        }


def _that_follow_time(
    cells: Mapping[str, Ids], model: nn.Module, seen: Trace, longer: tuple[Tensor, ...]
) -> dict[str, Ids]:
    """Those that are used more often if there are more positions; all if the model cannot be traced at them."""
    try:
        again = trace(model, longer)
    except SurgeryError:
        return dict(cells)
    return {name: groups for name, groups in cells.items() if uses(again, name) > uses(seen, name)}

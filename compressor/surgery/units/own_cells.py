"""Which modules of a model are recurrent cells in Python, and what of them is not to be chosen beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.surgery.equivalence import evaluating_on_cpu
from compressor.surgery.trace.own_cells import own_cells
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.planning import CONVOLUTIONS, output_axis

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OwnCell:
    """A recurrent cell of the model's own code."""

    units: int
    """How many units it carries from step to step."""
    parts: tuple[str, ...]
    """Layers that make nothing but these units: its gates."""


def find_own_cells(model: nn.Module, example: tuple[Tensor, ...]) -> dict[str, OwnCell]:
    """Name of a module -> what is known of the cell that its code computes.

    Args:
        model: Left as it is.
        example: Inputs of at least three steps: a state is known by what comes back in the third.

    Returns:
        Nothing for a model that cannot be traced; the step that needs the trace says why.
    """
    with evaluating_on_cpu(model) as original:
        try:
            seen = trace(original, tuple(part.cpu() for part in example))
        except SurgeryError:
            return {}
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
            for cell, groups in own_cells(seen).items()
        }

"""How strongly hidden units drive each other, as the trace finds them: within layers, between layers and back.

The trace knows for every column of a recurrent layer's input matrix which unit it takes in. So stacked layers, both
directions, modules behind each other, states handed over and top-down feedback (a cell that reads what an upper one
said the step before) all become blocks of one matrix, without a rule for any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressor.nn.lattice.adjacency import strengths
from compressor.nn.names import full_name
from compressor.nn.recurrent.layers import is_layer, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace

Combine = Literal["max", "l2"]


@dataclass(frozen=True)
class Block:
    """A weight matrix (gates * rows, inputs), some of whose columns take units in."""

    weight: str
    """Parameter name."""
    gates: int
    rows: Tensor
    """(H,): the element that each row of a gate block drives."""
    columns: Tensor
    """(c,): the columns that take units in."""
    sources: Tensor
    """(c,): the element that each of them takes in."""


@dataclass(frozen=True)
class Connections:
    """The units of one layer, or of all, and the weights between them."""

    label: str
    """How errors and reports name it."""
    groups: Ids
    """(n,): the group of each element."""
    strengths: Tensor
    """(n, n), float32 or wider, row = target, column = source."""
    present: Tensor
    """(n, n), boolean: there is a weight at all."""
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class _Layer:
    """One layer and direction of a recurrent module, or a cell."""

    label: str
    groups: Ids
    gates: int
    weight_ih: str
    weight_hh: str
    weight_hr: str | None


def connections(
    model: nn.Module,
    trace: Trace,
    names: Sequence[str] | None,
    *,
    scope: Literal["layer", "global"],
    combine: Combine,
) -> list[Connections]:
    """What drives what.

    Args:
        model: The traced model.
        trace: Its trace.
        names: Recurrent modules and cells; None for all of them.
        scope: `layer`: one matrix for each layer and direction, of its recurrent weights; `global`: one matrix of all
            of them, with the input weights between layers as further blocks. Tied units are one element there.
        combine: See `lattice.adjacency.strengths`.
    """
    layers = list(_layers(model, trace, names))
    if scope == "layer":
        return [_connect(model, trace, [layer], layer.label, combine, inputs=False) for layer in layers]
    return [_connect(model, trace, layers, f"the {len(layers)} recurrent layers", combine, inputs=True)]


def _connect(
    model: nn.Module, trace: Trace, layers: Sequence[_Layer], label: str, combine: Combine, *, inputs: bool
) -> Connections:
    groups = np.unique(np.concatenate([layer.groups for layer in layers]))
    total = torch.zeros(len(groups), len(groups))
    present = torch.zeros(len(groups), len(groups), dtype=torch.bool)
    blocks = []
    for layer in layers:
        for weight in (layer.weight_ih, layer.weight_hh) if inputs else (layer.weight_hh,):
            taken = _block(model, trace, layer, weight, groups, combine)
            if taken is None:
                continue
            block, strength = taken
            place = block.rows[:, None], block.sources[None, :]
            total = total.to(torch.promote_types(total.dtype, strength.dtype))
            total[place] = torch.maximum(total[place], strength.to(total.dtype))
            present[place] = True
            blocks.append(block)
    return Connections(label, groups, total, present, tuple(blocks))


def _block(
    model: nn.Module, trace: Trace, layer: _Layer, weight: str, groups: Ids, combine: Combine
) -> tuple[Block, Tensor] | None:
    """The part of a weight that takes some of `groups` in, and its strengths; None if it takes none of them in."""
    matrix = model.get_parameter(weight).detach()
    if weight == layer.weight_hh and layer.weight_hr is not None:
        # What comes back is a projection of the units, so that the product drives them.
        matrix, ids = matrix @ model.get_parameter(layer.weight_hr).detach(), layer.groups
    else:
        ids = trace.atoms.roots(trace.atoms.axes.get((weight, 1), np.zeros(matrix.size(1), np.int64)))
    taken = np.isin(ids, groups).nonzero()[0]
    if not len(taken):
        return None
    columns = torch.from_numpy(taken)
    rows, sources = (torch.from_numpy(np.searchsorted(groups, part)) for part in (layer.groups, ids[taken]))
    return Block(weight, layer.gates, rows, columns, sources), strengths(matrix[:, columns], layer.gates, combine)


def _layers(model: nn.Module, trace: Trace, names: Sequence[str] | None) -> Iterator[_Layer]:
    for (name, layer, direction), ids in trace.units.items():
        if names is not None and name not in names:
            continue
        module: Any = model.get_submodule(name)
        part = next(part for part in parts(module) if (part.layer, part.direction) == (layer, direction))
        full = {key: full_name(name, local) for key, local in part.names.items()}
        backwards = ", backwards" if direction else ""
        yield _Layer(
            f"layer {layer}{backwards} of `{name}`" if is_layer(module) else f"`{name}`",
            trace.atoms.roots(ids),
            part.cell.gates.count,
            full["weight_ih"],
            full["weight_hh"],
            full.get("weight_hr"),
        )

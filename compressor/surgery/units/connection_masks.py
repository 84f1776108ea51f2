"""Masks that remove connections between units: by the order of the units, or as many by magnitude or at random."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch

from compressor.nn.masks import pruned_count
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.connections import connections
from compressor.surgery.units.order import keeping, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.surgery.units.order import Reading, Settings

Ranking = Literal["lattice", "magnitude", "random"]


def read_connections(
    model: nn.Module,
    example: tuple[Tensor, ...],
    names: Sequence[str],
    settings: Settings,
    scope: Literal["layer", "global"],
) -> list[Reading]:
    """The order of the units of the named recurrent layers.

    Args:
        model: Left as it is.
        example: Inputs to trace with.
        names: Recurrent layers and cells.
        settings: How the order is read.
        scope: One order for each layer and direction, or one over all of them.
    """
    model = copy.deepcopy(model).cpu().eval()
    seen = trace(model, tuple(part.cpu() for part in example))
    return [read(part, settings) for part in connections(model, seen, names, scope=scope, combine=settings.combine)]


def prune_connections(
    readings: Sequence[Reading],
    masks: Mapping[str, Tensor],
    by: Ranking,
    sparsity: float | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The masks with connections removed from the weights of the readings.

    Args:
        readings: The order of each layer, or of all.
        masks: Parameter name -> boolean mask, True = kept; one for every weight of the readings.
        by: What goes first.
        sparsity: Fraction of the connections that goes; None: as many as the order says.
        generator: Draws, with `by` random.
    """
    pruned = dict(masks)
    for reading in readings:
        ranks = _ranks(reading, by, generator)
        kept = _all_but_lowest(ranks, reading.connections.present, _number(reading, sparsity))
        for block in reading.connections.blocks:
            part = kept[block.rows][:, block.sources].repeat(block.gates, 1)  # gate blocks one below the other
            mask = pruned[block.weight].clone()
            mask[:, block.columns] &= part.to(mask.device)
            pruned[block.weight] = mask
    return pruned


def _number(reading: Reading, sparsity: float | None) -> int:
    """How many connections go."""
    present = reading.connections.present
    if sparsity is not None:
        return pruned_count(int(present.sum()), sparsity)
    return int((present & ~keeping(reading)).sum())


def _ranks(reading: Reading, by: Ranking, generator: torch.Generator) -> Tensor:
    """What goes first (n, n), ascending."""
    strengths = reading.connections.strengths
    if by == "random":
        return torch.rand(strengths.shape, generator=generator)
    if by == "magnitude":
        return strengths
    return keeping(reading).to(strengths.dtype) + strengths / (1.0 + strengths.max())


def _all_but_lowest(ranks: Tensor, among: Tensor, count: int) -> Tensor:
    """False at the `count` lowest of the marked entries, the first of equal ones."""
    lowest = torch.argsort(ranks[among], stable=True)[:count]
    stays = torch.ones(int(among.sum()), dtype=torch.bool).index_fill(0, lowest, value=False)
    return torch.ones_like(among).masked_scatter(among, stays)

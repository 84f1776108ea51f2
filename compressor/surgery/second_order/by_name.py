"""Matrices of a model rounded by second order, by the names of its parameters, for what trains them on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from compressor.nn.integers import Rows, block_of, rows_to_nearest
from compressor.surgery.second_order.solver import second_order
from compressor.surgery.second_order.table import one_by_one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from compressor.nn.integers import Floats
    from compressor.surgery.second_order.observe import Operand
    from compressor.surgery.second_order.solver import Doubles

RowsByName = dict[tuple[str, int], Rows]
"""Parameter and bits -> its rows."""


def nearest(weight: Tensor, bits: int, block: int) -> Rows:
    """A matrix (N, K) rounded to the nearest."""
    return rows_to_nearest(weight.detach().numpy(), bits, block_of(bits, weight.shape[1], block))


def rounded_by_name(
    model: nn.Module, batches: Sequence[tuple[Tensor, ...]], bits: Mapping[str, Sequence[int]], block: int
) -> RowsByName:
    """Round matrices by the second moments of their inputs, one after the other in the order of their use.

    Each sees what those before it, in the last of their numbers of bits, make of the batches; tables, whose rows are
    looked up one by one, are rounded to the nearest first.

    Args:
        model: On the CPU, in evaluation mode; it is not changed.
        batches: Its inputs, at least one.
        bits: Parameter -> numbers of bits; more than 8 leave it exact.
        block: Weights of a row with a common scale in fewer than 8 bits.

    Returns:
        What was rounded so; left out are tables, and matrices of which not all rows are multiplied by something.
    """
    copied = copy.deepcopy(model)
    _round_tables(copied, bits, block)
    parts: dict[tuple[str, int], list[tuple[Operand, Rows]]] = {}

    def rounded(operand: Operand, weight: Floats, moment: Doubles) -> Rows | None:
        rows = None
        if operand.columns:
            return None
        for count in bits.get(operand.parameter, ()):
            rows = None
            if count <= 8:
                rows = second_order(weight, moment, count, block_of(count, weight.shape[1], block))
                parts.setdefault((operand.parameter, count), []).append((operand, rows))
        return rows

    one_by_one(copied, batches, rounded)
    whole = {key: _joined(found, len(model.get_parameter(key[0]))) for key, found in parts.items()}
    return {key: rows for key, rows in whole.items() if rows is not None}


@torch.no_grad()
def _round_tables(model: nn.Module, bits: Mapping[str, Sequence[int]], block: int) -> None:
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, counts in bits.items():
        parameter = model.get_parameter(name)
        if id(parameter) in tables and counts[-1] <= 8:
            parameter.copy_(torch.from_numpy(nearest(parameter, counts[-1], block).weight))


def _joined(parts: Sequence[tuple[Operand, Rows]], count: int) -> Rows | None:
    """The rows of a matrix from those of its parts; None if some are missing."""
    ordered = sorted(parts, key=lambda item: item[0].start)
    place = 0
    for operand, _ in ordered:
        if operand.start != place:
            return None
        place = operand.stop
    if place != count:
        return None
    values, scale = (np.concatenate(arrays) for arrays in zip(*((r.values, r.scale) for _, r in ordered), strict=True))
    return Rows(values, scale, ordered[0][1].block)

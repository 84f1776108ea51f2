"""Where `retrain` with `quantize` begins: the bits of each matrix, and its rounding by second order."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from compressor.training.rounding import Precision, Rounding

BATCHES = 16
"""Training batches on which the inputs of matrices are measured."""


def learned_rounding(
    model: nn.Module,
    precision: Precision,
    keep_float: Sequence[str],
    *,
    bits: float | None,
    batches: Sequence[tuple[Tensor, ...]],
    from_second_order: bool,
) -> Rounding:
    """Rounding with learned steps.

    Args:
        model: What is trained; its matrices get the weights that the rounding starts with.
        precision: Of its matrices.
        keep_float: Globs of those that stay float.
        bits: With `mixed`: of a weight on average; convolutions, which are not trained so, take part.
        batches: Training inputs.
        from_second_order: Start from the second-order rounding, not from that with the least error of the weights.

    Raises:
        MethodError: There is nothing to round, or not in so few bits.
    """
    import torch

    from compressor.nn.integers import BLOCK
    from compressor.nn.weight_matrices import weight_matrices
    from compressor.surgery.second_order.bits import choose_bits
    from compressor.surgery.second_order.by_name import rounded_by_name
    from compressor.training.rounding import HALF, Rounding, Start

    usual = {name: count for name, (_, count) in Rounding(model, precision, keep_float).parameters.items()}
    copied = copy.deepcopy(model).cpu().eval()
    inputs = [tuple(part.cpu() for part in batch) for batch in batches]
    # What is not trained in few bits has a share of the average too: the file would have nothing left for it.
    untrained = [
        name
        for name, one in weight_matrices(model).items()
        if one.use == "convolution" and not any(fnmatchcase(name, pattern) for pattern in keep_float)
    ]
    chosen = usual if bits is None else choose_bits(copied, inputs, list(usual), bits, BLOCK, untrained=untrained)
    chosen = {name: chosen[name] for name in usual}
    starts = {}
    if from_second_order:
        rows = rounded_by_name(copied, inputs, {name: (count,) for name, count in chosen.items()}, BLOCK)
        starts = {
            name: Start(torch.from_numpy(item.weight), torch.from_numpy(item.scale))
            for (name, count), item in rows.items()
            if count != HALF
        }
    return Rounding(model, precision, keep_float, learn_steps=True, bits=chosen, starts=starts)

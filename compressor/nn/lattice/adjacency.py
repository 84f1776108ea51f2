"""From recurrent weights to a relation between units: entry (i, j) is about the weight from source j to target i."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import torch
from torch import Tensor

from compressor.errors import UsageError


def strengths(weight: Tensor, gates: int, combine: Literal["max", "l2"] = "max") -> Tensor:
    r"""How strongly unit j drives unit i, over all the gates of a recurrent matrix.

    .. math:: S_{ij} = \max_g |W_{g, ij}| \quad \text{or} \quad S_{ij} = \sqrt{\sum_g W_{g, ij}^2}

    Args:
        weight: Recurrent matrix (gates * n, n), or an input matrix (gates * n, m) whose columns take units in; gate
            blocks one below the other as PyTorch keeps them.
        gates: 1 for an RNN, 3 for a GRU, 4 for an LSTM.
        combine: `max` or `l2`.

    Returns:
        S (n, n) or (n, m), float32 or wider, >= 0; i = target, j = source.

    Raises:
        UsageError: another shape, or a value that is not finite.
    """
    if weight.dim() != 2 or weight.numel() == 0 or weight.size(0) % gates:
        raise UsageError(
            f"a matrix of {gates} gate(s) has {gates} * n rows, this one the shape {tuple(weight.shape)}",
            hint="pass `weight_hh` of one layer and direction, and 1 gate for an RNN, 3 for a GRU, 4 for an LSTM",
        )
    if not bool(weight.isfinite().all()):
        raise UsageError(
            "the recurrent matrix holds values that are not finite", hint="load weights from before training diverged"
        )
    blocks = (
        weight.detach().to(torch.promote_types(weight.dtype, torch.float32)).view(gates, -1, weight.size(1))
    )  # (G, n, m)
    return blocks.abs().amax(0) if combine == "max" else torch.linalg.vector_norm(blocks, dim=0)


def percentile(matrix: Tensor, percent: float) -> Tensor:
    """The value below which `percent` per cent of the entries lie, interpolated linearly as `numpy.percentile` does.

    The position among the N sorted entries, percent / 100 * (N - 1), is computed on the decimal number as it was
    written, so that a position that should be whole is whole.

    Args:
        matrix: Any shape, at least one entry.
        percent: 0..100.

    Returns:
        A scalar of the matrix's dtype and device.

    Raises:
        UsageError: a percentile outside 0..100.
    """
    if not 0 <= percent <= 100:
        raise UsageError(f"the percentile {percent} is out of range", hint="choose one in 0..100; 50 is the median")
    entries = matrix.flatten()
    position = Decimal(str(percent)) * (len(entries) - 1) / 100
    below = int(position)
    low = entries.kthvalue(below + 1).values
    if position == below:
        return low
    return torch.lerp(low, entries.kthvalue(below + 2).values, float(position - below))


def binary(matrix: Tensor, threshold: float | Tensor) -> Tensor:
    """A = S > threshold, boolean (n, n); the threshold itself does not pass."""
    return matrix > threshold


def continuous(matrix: Tensor) -> Tensor:
    """A = S / max(S), in 0..1, (n, n); zeros if all of S is zero."""
    largest = matrix.max()
    return matrix / torch.where(largest > 0, largest, torch.ones_like(largest))

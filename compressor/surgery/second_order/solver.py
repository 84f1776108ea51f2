r"""Rounds a matrix so that its products change least, instead of its weights.

With inputs x (K,) of a matrix W (N, K) and their second moment H, the mean of x x^T, rounding W to Q adds the error

.. math::
    \mathrm{E} |(W - Q) x|^2 = \mathrm{tr} \, (W - Q) H (W - Q)^T

to which each row contributes on its own. Columns are rounded one after the other, and the columns that are still exact
take over the error of each so that the sum stays smallest (Optimal Brain Surgeon, Hassibi and Stork 1993; Optimal Brain
Quantization, Frantar et al., arXiv 2208.11580; one order for all rows and a Cholesky factor: GPTQ, arXiv 2210.17323,
section 3.3). Then single weights move to other integers while that makes the sum smaller (coordinate descent).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compressor.nn.integers import Rows, largest, rows_to_nearest, to_integers, usable_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compressor.nn.integers import Floats

    Doubles = NDArray[np.float64]

DAMPING = 0.01
"""Of the mean diagonal of H, added to it: few samples say little about most directions (GPTQ, section 4)."""
_SHARES = tuple(1.0 - 0.05 * step for step in range(11))
"""Scales of a block of 4 bits that are tried, in parts of max |w| / 7: clipping a large weight may cost less."""
_SWEEPS = 4
"""Of coordinate descent at most; the first one finds most of the gain."""
_CHUNK = 64
"""Columns whose changes reach the columns behind them together, in one product."""


def second_order(weight: Floats, moment: Doubles, bits: int, block: int, *, damping: float = DAMPING) -> Rows:
    """Round rows so that the error of their products is small.

    Weights that are exactly 0 stay 0, so masks survive. No row is worse than to the nearest by `product_errors` with
    the damped moment; a row that is a scale times integers already is not changed.

    Args:
        weight: W (N, K).
        moment: H (K, K). An input that is always 0 decides nothing.
        bits: 8 or fewer.
        block: Weights of a row with a common scale; K for one scale a row.
        damping: In parts of the mean diagonal of H.
    """
    exact = weight.astype(np.float64)
    damped = damped_moment(moment, damping)
    plain = rows_to_nearest(weight, bits, block)
    passed = pass_on(exact, damped, plain, bits)
    better = product_errors(exact, passed, damped) < product_errors(exact, plain, damped)
    start = Rows(
        np.where(better[:, None], passed.values, plain.values),
        np.where(better[:, None], passed.scale, plain.scale),
        block,
    )
    return descend(exact, damped, start, bits)


def product_errors(weight: Doubles, rows: Rows, moment: Doubles) -> Doubles:
    """E |(w - q) x|^2 of every row (N,), with the second moment H of x."""
    error = weight - rows.weight
    errors: Doubles = ((error @ moment) * error).sum(1)
    return errors


def damped_moment(moment: Doubles, damping: float) -> Doubles:
    """H (K, K) with a larger diagonal, so that it is positive definite."""
    damped = moment.astype(np.float64, copy=True)
    mean = float(damped.diagonal().mean())
    damped[np.diag_indices_from(damped)] += damping * mean if mean > 0 else 1.0
    return damped


def pass_on(weight: Doubles, moment: Doubles, plain: Rows, bits: int) -> Rows:
    """Round column by column; those that follow take over the error of each.

    Args:
        weight: W (N, K).
        moment: H (K, K), positive definite.
        plain: W rounded to the nearest: its scales are kept in 8 bits, those of fewer are chosen anew.
        bits: 8 or fewer.
    """
    count, columns = weight.shape
    chunk = min(plain.block, columns) if bits < 8 else _CHUNK
    factor = np.linalg.cholesky(np.linalg.inv(moment)).T  # row j: what the rest takes over of an error in column j
    exact, kept = weight.copy(), weight != 0
    values, scale = np.zeros((count, columns), np.int8), plain.scale.copy()
    for start in range(0, columns, chunk):
        stop = min(columns, start + chunk)
        part, upper = exact[:, start:stop].copy(), factor[start:stop, start:stop]
        if bits < 8:
            scale[:, start // plain.block] = _block_scale(part, upper.diagonal() ** -2.0, bits)
        step = scale[:, start // plain.block]
        errors = np.zeros_like(part)
        for column in range(stop - start):
            rounded = to_integers(part[:, column], step, bits) * kept[:, start + column]
            values[:, start + column] = rounded
            errors[:, column] = (part[:, column] - rounded * step.astype(np.float64)) / upper[column, column]
            part[:, column + 1 :] -= np.outer(errors[:, column], upper[column, column + 1 :])
        exact[:, stop:] -= errors @ factor[start:stop, stop:]
    return Rows(values, scale, plain.block)


def _block_scale(part: Doubles, importance: Doubles, bits: int) -> Floats:
    """The scale (N,) of a block (N, block) with the smallest weighted squares of its errors."""
    peak = np.abs(part).max(1)
    best, least = usable_scale(peak, bits), np.full(len(part), np.inf)
    for share in _SHARES:
        scale = usable_scale(share * peak, bits)
        rounded = to_integers(part, scale[:, None], bits) * scale[:, None].astype(np.float64)
        cost = ((part - rounded) ** 2 * importance).sum(1)
        best = np.where(cost < least, scale, best)
        least = np.minimum(cost, least)
    return best


def descend(weight: Doubles, moment: Doubles, rows: Rows, bits: int) -> Rows:
    """Move single weights to better integers, one column after the other, until none moves.

    Args:
        weight: W (N, K).
        moment: H (K, K), positive definite.
        rows: Where to start; scales stay.
        bits: 8 or fewer.
    """
    steps, kept = rows.scale_of_each.astype(np.float64), weight != 0
    found = rows.values.copy()
    values = rows.values.astype(np.float64)
    gradient = (values * steps - weight) @ moment
    moving = np.arange(len(weight))
    for _ in range(_SWEEPS):
        moved = _sweep(values, gradient, steps, kept, moment, bits)
        found[moving[moved]] = values[moved].astype(np.int8)
        # Rows have nothing to do with each other: one that did not move in a whole sweep never will.
        moving, kept = moving[moved], kept[moved]
        values, gradient, steps = values[moved], gradient[moved], steps[moved]
        if not len(moving):
            break
    return Rows(found, rows.scale, rows.block)


def _sweep(
    values: Doubles, gradient: Doubles, steps: Doubles, kept: NDArray[np.bool_], moment: Doubles, bits: int
) -> NDArray[np.intp]:
    """Move single integers (N, K), one column after the other, with their gradient; gives the rows that moved."""
    count, columns = values.shape
    diagonal, most, moved = moment.diagonal(), largest(bits), np.zeros(count, np.bool_)
    for start in range(0, columns, _CHUNK):
        stop = min(columns, start + _CHUNK)
        local, inner = gradient[:, start:stop].copy(), moment[start:stop, start:stop]
        changes = np.zeros_like(local)
        for column in range(stop - start):
            place = start + column
            shift = -local[:, column] / (diagonal[place] * steps[:, place])
            # Beyond one half by more than the rounding of these sums, or two sweeps could swap back and forth.
            here = np.flatnonzero((np.abs(shift) > 0.5 + 1e-9) & kept[:, place])
            better = np.clip(np.rint(values[here, place] + shift[here]), -most, most)
            changes[here, column] = (better - values[here, place]) * steps[here, place]
            values[here, place] = better
            local[here, column:] += changes[here, column, None] * inner[column, column:]
        changed = np.flatnonzero(changes.any(1))
        moved[changed] = True
        gradient[changed] += changes[changed] @ moment[start:stop]
    return np.flatnonzero(moved)

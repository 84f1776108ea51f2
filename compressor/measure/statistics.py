"""Intervals, kept apart from clocks and models so that they can be tried on made-up numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from compressor.report import Interval, SpeedUp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
_CHUNK_ELEMENTS = 1 << 22
_MOST_VALUES = 1 << 20
"""Of more values, groups of neighbours are drawn."""
_GROUPS = 4096


def bootstrap_mean(
    values: NDArray[np.float64],
    *,
    groups: NDArray[np.intp] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Percentile bootstrap interval of the mean of `values` (N,).

    Draws `resamples` times N values with replacement and takes the (1 -+ confidence) / 2 quantiles of their means
    (Efron and Tibshirani, An Introduction to the Bootstrap, section 13.3). The same seed gives the same interval.
    Of millions of values it draws how often each of 4096 groups of neighbours in order comes up: the spread of the
    means is the same but for that inside of the groups, and it takes seconds instead of hours.

    Args:
        values: One a sample.
        groups: The group 0..G-1 of each value (N,); G whole groups are drawn instead of N values, and the mean is that
            of all values in those drawn (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their
            Application, section 3.8).
        confidence: Of the interval.
        seed: Of the draws.
        resamples: Number of draws.

    Returns:
        None if resampling tells nothing: fewer than two values or groups, or all values equal.
    """
    count = len(values) if groups is None else int(groups.max()) + 1
    if count < 2 or values.min() == values.max():
        return None
    random = np.random.default_rng(seed)
    if groups is not None:
        means = _means_of_clusters(values, groups, random, resamples)
    elif count <= _MOST_VALUES:
        means = _means(values, random, resamples)
    else:
        means = _means_of_neighbours(values, random, resamples)
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(low=float(low), high=float(high), confidence=confidence)


def _means(values: NDArray[np.float64], random: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    return np.concatenate([values[drawn].mean(axis=1) for drawn in _draws(len(values), random, resamples)])


def _means_of_clusters(
    values: NDArray[np.float64], groups: NDArray[np.intp], random: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """The mean of all values in the groups that are drawn."""
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    draws = _draws(len(sums), random, resamples)
    return np.concatenate([sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) for drawn in draws])


def _draws(count: int, random: np.random.Generator, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Indexes with replacement (resamples, count), some rows at a time."""
    rows = max(1, _CHUNK_ELEMENTS // count)
    for start in range(0, resamples, rows):
        yield random.integers(0, count, size=(min(rows, resamples - start), count))


def _means_of_neighbours(
    values: NDArray[np.float64], random: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    groups = np.array_split(np.sort(values), _GROUPS)
    sizes = np.array([len(group) for group in groups])
    drawn = random.multinomial(len(values), sizes / len(values), size=resamples)
    means: NDArray[np.float64] = drawn @ np.array([group.mean() for group in groups]) / len(values)
    return means


def fewest_for_median(confidence: float = 0.95) -> int:
    """How many values `median_interval` needs: the least n with 2 * 0.5**n <= 1 - confidence."""
    return math.ceil(1 - math.log2(1 - confidence))


def median_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Interval of the median from order statistics, right for any distribution and any number of values.

    With x_(1) <= ... <= x_(n), the interval [x_(k), x_(n+1-k)] misses the median with probability
    2 * P(Binomial(n, 1/2) <= k - 1); k is the largest for which that is at most 1 - confidence.
    (David and Nagaraja, Order Statistics, section 7.1.)

    Raises:
        ValueError: fewer than `fewest_for_median(confidence)` values.
    """
    ordered = sorted(values)
    count = len(ordered)
    if count < fewest_for_median(confidence):
        raise ValueError(f"{count} values are too few for an interval of {confidence}")
    tail, rank = 0.0, 0
    while True:
        tail += math.comb(count, rank) * 0.5**count
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    return Interval(low=ordered[rank - 1], high=ordered[count - rank], confidence=confidence)


def speed_up(baseline: Sequence[float], other: Sequence[float], *, confidence: float = 0.95) -> SpeedUp:
    """Baseline latency / other latency from one median of each per round, both (R,), in the same unit.

    The ratio is the median over rounds of baseline / other, its interval is `median_interval` over rounds.

    Timings of neighbouring rounds resemble each other (clock frequency, other programs), which would make a
    plain bootstrap too sure. Here that cannot invent a difference: the caller draws anew in every round which
    file is loaded and timed first, so between two equally fast files each round's ratio falls above or below 1
    like a fresh coin, whatever the noise does over time, and order statistics ask for no more than that.
    """
    ratios = [first / second for first, second in zip(baseline, other, strict=True)]
    interval = median_interval(ratios, confidence=confidence)
    return SpeedUp(ratio=float(np.median(ratios)), interval=interval, within_noise=interval.low <= 1.0 <= interval.high)


def student_quantile(tail: float, degrees: int) -> float:
    """The t > 0 that a Student-distributed number of whole degrees of freedom exceeds with probability `tail`.

    Found by bisection in the closed form of the distribution (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Raises:
        ValueError: `tail` is not in (0, 0.5) or `degrees` below 1.
    """
    if not 0.0 < tail < 0.5 or degrees < 1:
        raise ValueError(f"no quantile at {tail} with {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _student_tail(high, degrees) > tail:
        high *= 2.0
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, degrees) > tail else (low, middle)
    return high


def _student_tail(t: float, degrees: int) -> float:
    """P(T > t) for t >= 0: (1 - A) / 2 with A = P(|T| <= t), a finite sum in powers of cos(atan(t / sqrt(n)))."""
    theta = math.atan2(t, math.sqrt(degrees))
    square = math.cos(theta) ** 2
    odd = degrees % 2 == 1
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= square * (k - 1) / k
    within = 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
    return (1.0 - within) / 2


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Student's interval of the mean of a normal population, for a handful of values; None of fewer than two."""
    if len(values) < 2:
        return None
    return _around(float(np.mean(values)), [values], len(values) - 1, confidence)


def difference_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95
) -> Interval | None:
    """Welch's interval of mean(first) - mean(second); None if a side has fewer than two values.

    The degrees of freedom of Welch and Satterthwaite are rounded down, which makes it a little wider.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (first, second)]
    if sum(parts) == 0.0:
        degrees = 1
    else:
        exact = sum(parts) ** 2 / sum(
            part**2 / (len(side) - 1) for part, side in zip(parts, (first, second), strict=True)
        )
        degrees = math.floor(exact + 1e-9)
    return _around(float(np.mean(first) - np.mean(second)), [first, second], degrees, confidence)


def _around(centre: float, sides: Sequence[Sequence[float]], degrees: int, confidence: float) -> Interval:
    error = math.sqrt(sum(float(np.var(side, ddof=1)) / len(side) for side in sides))
    reach = student_quantile((1 - confidence) / 2, degrees) * error
    return Interval(low=centre - reach, high=centre + reach, confidence=confidence)

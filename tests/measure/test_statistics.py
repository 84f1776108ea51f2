import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.measure.statistics import (
    bootstrap_mean,
    difference_interval,
    fewest_for_median,
    mean_interval,
    median_interval,
    speed_up,
    student_quantile,
)

finite = st.floats(-1e6, 1e6)
ROUNDS = 30


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=2, max_size=60))
def test_bootstrap_interval_lies_within_the_values_and_is_ordered(values):
    interval = bootstrap_mean(np.array(values), resamples=200)
    if interval is None:
        assert min(values) == max(values)
    else:
        slack = 1e-9 * max(abs(value) for value in values)
        assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


def test_windows_of_one_recording_count_as_one_sample():
    recordings = np.random.default_rng(1).normal(3.0, 2.0, 23)
    windows, groups = recordings.repeat(7), np.arange(23).repeat(7)
    expected = bootstrap_mean(recordings)
    alone, together = bootstrap_mean(windows), bootstrap_mean(windows, groups=groups)
    assert (together.low, together.high) == pytest.approx((expected.low, expected.high))
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_groups_of_other_sizes_weigh_what_they_hold():
    values, groups = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    interval = bootstrap_mean(values, groups=groups)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert bootstrap_mean(values, groups=np.zeros(4, dtype=int)) is None


def test_bootstrap_interval_matches_the_normal_one_for_many_samples():
    values = np.random.default_rng(1).normal(3.0, 2.0, 1009)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(2)
    hits = 0
    for trial in range(400):
        interval = bootstrap_mean(draw.normal(0.0, 1.0, 53), seed=trial, resamples=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.91 <= hits / 400 <= 0.98


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(3).random(101)
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0, 1.0]])
def test_bootstrap_says_nothing_where_resampling_tells_nothing(values):
    assert bootstrap_mean(np.array(values)) is None


def test_six_values_are_the_fewest_for_a_median_at_95_percent():
    assert fewest_for_median(0.95) == 6
    interval = median_interval([5.0, 1.0, 4.0, 2.0, 6.0, 3.0])
    assert (interval.low, interval.high) == (1.0, 6.0)
    with pytest.raises(ValueError, match="5 values are too few"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])


def test_median_interval_takes_the_tabulated_ranks():
    # Binomial(20, 1/2): P(<= 5) = 0.0207, P(<= 6) = 0.0577, so the 6th smallest and the 6th largest.
    interval = median_interval([float(value) for value in range(1, 21)])
    assert (interval.low, interval.high) == (6.0, 15.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=80))
def test_median_interval_holds_the_median(values):
    interval = median_interval(values)
    assert interval.low <= np.median(values) <= interval.high


def drifting_noise(draw, count, memory):
    """Multiplicative noise whose neighbours resemble each other, as on a shared machine: log AR(1) with rare spikes."""
    level, values = 0.0, []
    for _ in range(count):
        level = memory * level + draw.gauss(0, 0.05)
        values.append(math.exp(level) * (1 + draw.random() * (draw.random() > 0.95)))
    return values


def interleaved(draw, *, ratio, memory, advantage=0.0):
    """Burst medians of a baseline and a file `ratio` times as fast that take turns in random order.

    `advantage` is what the place in the round is worth, such as the better place in memory.
    """
    noise = iter(drifting_noise(draw, 2 * ROUNDS, memory))
    baseline, other = [], []
    for _ in range(ROUNDS):
        first = draw.random() < 0.5
        for place, mine in enumerate((first, not first)):
            taken = next(noise) * (1 + advantage * place)
            baseline.append(taken) if mine else other.append(taken / ratio)
    return speed_up(baseline, other)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("advantage", [0.0, 0.1])
def test_a_file_against_itself_is_within_noise_about_as_often_as_stated(memory, advantage):
    draw = random.Random(11)
    trials = 600
    within = sum(interleaved(draw, ratio=1.0, memory=memory, advantage=advantage).within_noise for _ in range(trials))
    assert 0.93 <= within / trials <= 0.99  # 30 rounds: 0.957 exactly; 600 trials: +- 0.016


def test_a_file_three_tenths_faster_is_told_from_noise():
    draw = random.Random(12)
    found = [interleaved(draw, ratio=1.3, memory=0.9) for _ in range(100)]
    assert not any(faster.within_noise for faster in found)
    assert np.median([faster.ratio for faster in found]) == pytest.approx(1.3, rel=0.03)


def test_speed_up_above_one_means_the_other_file_is_faster():
    faster = speed_up([3.0] * 7, [2.0] * 7)
    assert faster.ratio == pytest.approx(1.5)
    assert not faster.within_noise


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 101])
@pytest.mark.parametrize("tail", [0.4, 0.05, 0.025, 0.001])
def test_students_quantiles_are_scipys(tail, degrees):
    from scipy.stats import t as student

    assert student_quantile(tail, degrees) == pytest.approx(student.ppf(1 - tail, degrees), rel=1e-6)


@pytest.mark.parametrize(("tail", "degrees"), [(0.5, 3), (0.0, 3), (0.1, 0)])
def test_a_quantile_that_is_not_there_is_refused(tail, degrees):
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(tail, degrees)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=7))
def test_the_interval_of_a_mean_is_scipys(values):
    from scipy.stats import t as student

    interval = mean_interval(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = student.ppf(0.975, len(values) - 1) * error
    assert (interval.low, interval.high) == pytest.approx((np.mean(values) - reach, np.mean(values) + reach), abs=1e-6)


def test_the_interval_of_a_difference_is_welchs_with_whole_degrees_of_freedom():
    from scipy.stats import t as student
    from scipy.stats import ttest_ind

    first, second = [0.9, 0.95, 0.7, 0.99, 0.91], [0.3, 0.31, 0.32]
    interval = difference_interval(first, second)
    welch = ttest_ind(first, second, equal_var=False)
    exact = welch.confidence_interval(0.95)
    assert welch.df == pytest.approx(4.11, abs=0.01)
    assert interval.low == pytest.approx(exact.low, abs=0.01)
    error = math.sqrt(np.var(first, ddof=1) / 5 + np.var(second, ddof=1) / 3)
    assert interval.high == pytest.approx(np.mean(first) - np.mean(second) + student.ppf(0.975, 4) * error)
    assert interval.high - interval.low >= exact.high - exact.low


def test_the_interval_of_a_difference_covers_it_about_as_often_as_it_says():
    draw = np.random.default_rng(4)
    hits = sum(
        interval.low <= 1.0 <= interval.high
        for interval in (difference_interval(draw.normal(2, 0.1, 3), draw.normal(1, 2.0, 3)) for _ in range(400))
    )
    assert 0.92 <= hits / 400 <= 0.99


def test_equal_values_have_no_spread_and_one_value_has_no_interval():
    same = difference_interval([1.0] * 3, [0.25] * 3)
    assert (same.low, same.high) == (0.75, 0.75)
    assert difference_interval([1.0], [0.25] * 3) is None
    assert mean_interval([1.0]) is None


def test_the_interval_of_millions_of_values_is_the_one_of_their_spread():
    values = np.random.default_rng(3).exponential(2.0, 1_100_003)
    interval = bootstrap_mean(values, seed=4)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_mean(values, seed=4) == interval


def resampled(values, *, seed, resamples, confidence):
    """Of all draws at once: the quantiles of their means."""
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    return np.quantile(values[drawn].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])


@pytest.mark.parametrize(
    ("count", "resamples", "confidence"), [(2, 500, 0.9), (7, 2000, 0.95), (30011, 300, 0.5), (1 << 20, 9, 0.8)]
)
def test_drawing_in_chunks_is_drawing_at_once(count, resamples, confidence):
    values = np.random.default_rng(count).random(count)
    interval = bootstrap_mean(values, seed=5, resamples=resamples, confidence=confidence)
    expected = resampled(values, seed=5, resamples=resamples, confidence=confidence)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), rel=1e-12)
    assert interval.confidence == confidence


def test_groups_are_resampled_as_in_a_loop():
    values = np.random.default_rng(1).random(19)
    groups = np.array([0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 1, 0, 5, 6, 6, 2, 3, 5])
    drawn = np.random.default_rng(3).integers(0, 7, size=(400, 7))
    means = [np.concatenate([values[groups == group] for group in row]).mean() for row in drawn]
    interval = bootstrap_mean(values, groups=groups, seed=3, resamples=400, confidence=0.8)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


@pytest.mark.parametrize("confidence", [0.4, 0.5, 0.75, 0.9, 0.95, 0.99])
def test_fewest_values_are_the_least_whose_range_misses_the_median_seldom_enough(confidence):
    seldom = [count for count in range(1, 60) if 2 * 0.5**count <= 1 - confidence + 1e-12]
    assert fewest_for_median(confidence) == seldom[0]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [8, 9, 20, 21, 53])
def test_median_interval_is_the_narrowest_that_misses_seldom_enough(count, confidence):
    from scipy.stats import binom

    values = np.random.default_rng(count).permutation(count).astype(float)
    ranks = [rank for rank in range(1, count) if 2 * binom.cdf(rank - 1, count, 0.5) <= 1 - confidence]
    interval = median_interval(values.tolist(), confidence=confidence)
    assert (interval.low, interval.high) == (ranks[-1] - 1, count - ranks[-1])
    assert interval.confidence == confidence


@pytest.mark.parametrize(
    ("baseline", "other", "within"),
    [([2.0] * 6, [2.0] * 6, True), ([2.0] * 6, [1.9] * 6, False), ([1.9] * 6, [2.0] * 6, False)],
)
def test_an_interval_that_touches_one_is_within_noise(baseline, other, within):
    found = speed_up(baseline, other)
    assert found.within_noise == within
    assert found.ratio == found.interval.low == found.interval.high == baseline[0] / other[0]


def test_a_speed_up_is_the_median_of_ratios_by_round_with_the_confidence_asked_for():
    baseline, other = [3.0, 8.0, 1.0, 9.0, 2.0, 5.0, 7.0], [1.0, 4.0, 2.0, 3.0, 5.0, 4.0, 1.0]
    ratios = sorted(first / second for first, second in zip(baseline, other, strict=True))
    found = speed_up(baseline, other, confidence=0.5)
    assert found.ratio == ratios[3]
    assert found.interval == median_interval(ratios, confidence=0.5)
    assert found.interval.low > ratios[0]


@pytest.mark.parametrize("confidence", [0.5, 0.99])
def test_intervals_of_means_and_differences_have_the_confidence_asked_for(confidence):
    from scipy.stats import ttest_1samp, ttest_ind

    first, second = [0.9, 0.95, 0.7, 0.99], [0.3, 0.35, 0.32, 0.5]
    mean = mean_interval(first, confidence=confidence)
    exact = ttest_1samp(first, 0.0).confidence_interval(confidence)
    assert (mean.low, mean.high) == pytest.approx((exact.low, exact.high))
    equal = [value + 1.0 for value in first]  # of equal variances Welch's degrees are whole
    found = difference_interval(equal, first, confidence=confidence)
    welch = ttest_ind(equal, first, equal_var=False).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))
    assert mean.confidence == found.confidence == confidence
    assert difference_interval(first, second[:1]) is None
    assert difference_interval(first[:2], second[:2]) is not None


@pytest.mark.parametrize(("count", "confidence"), [(2, 0.5), (3, 0.75), (4, 0.875)])
def test_a_range_that_misses_the_median_exactly_as_often_as_it_may_is_an_interval(count, confidence):
    interval = median_interval([float(value) for value in range(count)], confidence=confidence)
    assert (interval.low, interval.high) == (0.0, count - 1.0)

"""Losses with a part of their noise taken out, by how far the outputs are from the original's."""

import pytest

from compressor.report import Drop, Interval
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.smoothing import Smoothing


def outcome(drop, gap, half=0.04):
    return Outcome(drop=Drop(value=drop, interval=Interval(low=drop - half, high=drop + half)), outputs_error=gap)


NOISY = [outcome(0.1 * gap + noise, gap) for gap, noise in zip(range(1, 9), [0.02, -0.02] * 4, strict=True)]


def test_a_loss_moves_towards_what_the_outputs_say():
    likely = Smoothing.of(NOISY).likely(NOISY[0])
    assert 0.1 < likely.value < 0.12
    assert likely.error < 0.04 / 1.96


def test_of_equal_losses_the_one_with_the_nearer_outputs_is_better():
    smoothing = Smoothing.of(NOISY)
    assert smoothing.likely(outcome(0.0, 0.1)).value < smoothing.likely(outcome(0.0, 0.5)).value


def test_no_change_in_a_few_samples_is_not_certain():
    likely = Smoothing.of(NOISY).likely(outcome(0.0, 2.0, half=0.0))
    assert likely.value > 0.05


def test_few_results_or_outputs_that_say_nothing_leave_it_as_it_was_measured():
    assert Smoothing.of(NOISY[:4]).likely(NOISY[0]).value == NOISY[0].drop.value
    scattered = [outcome(drop, 1.0, half=0.001) for drop in (0.5, -0.5, 0.4, -0.4, 0.3, -0.2)]
    assert Smoothing.of(scattered).likely(scattered[0]).value == pytest.approx(0.5, abs=0.01)


def test_a_metric_without_an_interval_is_believed():
    exact = [Outcome(drop=Drop(value=0.1 * gap), outputs_error=float(gap)) for gap in range(6)]
    likely = Smoothing.of(exact).likely(exact[3])
    assert (likely.value, likely.error) == (pytest.approx(0.3), 0.0)

"""Whether outputs up to a position depend on what lies behind it is found out at any distance, along any axis."""

from __future__ import annotations

import pytest
import torch

from compressor.surgery.attention.causality import looks_ahead

LENGTH, TOLERANCE = 7, 1e-5


def shifted(x, by, axis):
    """Each output is the input so many positions behind (before, if negative) it, zeros at the end."""
    y = torch.zeros_like(x)
    count = LENGTH - abs(by)
    target, source = (0, by) if by > 0 else (-by, 0)
    y.narrow(axis, target, count).copy_(x.narrow(axis, source, count))
    return y


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("by", range(-3, LENGTH))
def test_a_look_ahead_of_any_distance_is_found(axis, by):
    x = torch.randn((LENGTH, 3, 5) if axis == 0 else (3, LENGTH, 5), generator=torch.Generator().manual_seed(0))
    assert looks_ahead(lambda given: shifted(given, by, axis), x, axis, TOLERANCE) == (by > 0)


@pytest.mark.parametrize("place", [0, LENGTH // 2 - 1, LENGTH - 2])
def test_one_position_that_sees_the_last_is_found_at_the_first_the_middle_and_the_end(place):
    def run(x):
        y = x.cumsum(1)
        y[:, place] += x[:, -1]
        return y

    assert looks_ahead(run, torch.ones(3, LENGTH, 5), 1, TOLERANCE)
    assert not looks_ahead(lambda x: x.cumsum(1), torch.ones(3, LENGTH, 5), 1, TOLERANCE)


@pytest.mark.parametrize("length", [2, 3])
def test_two_positions_are_enough(length):
    x = torch.ones(1, length, 2)
    assert looks_ahead(lambda x: x.flip(1), x, 1, TOLERANCE)
    assert not looks_ahead(lambda x: 2 * x, x, 1, TOLERANCE)


@pytest.mark.parametrize(("part", "ahead"), [(0.5, False), (20.0, True)])
def test_a_change_is_measured_against_the_largest_output_and_nan_counts_as_zero(part, ahead):
    def run(x):
        y = torch.full_like(x, 100.0)
        y[:, 0] = float("nan")
        y[:, 1] += part * TOLERANCE * 100.0 * (x[:, -1] - 1.0).sign()
        return y

    x = torch.ones(1, LENGTH, 2)
    assert looks_ahead(run, x, 1, TOLERANCE) == ahead

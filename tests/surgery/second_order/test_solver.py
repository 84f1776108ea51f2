from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.integers import largest, rows_to_nearest, to_8_bits, to_integers, usable_scale
from compressor.surgery.second_order.solver import (
    damped_moment,
    descend,
    pass_on,
    product_errors,
    second_order,
)


def problem(seed, rows, columns, samples=200):
    """A matrix, and the second moment of inputs that depend on each other."""
    draws = np.random.default_rng(seed)
    inputs = draws.normal(size=(samples, columns)) @ draws.normal(size=(columns, columns)) + draws.normal(size=columns)
    return draws.normal(size=(rows, columns)).astype(np.float32), inputs.T @ inputs / samples


def naive_obq(weight, moment, scale):
    """One weight after the other by the inverse of what is left of H (arXiv 2208.11580, equations 2 and 3)."""
    integers = np.zeros(weight.shape, np.int8)
    for row in range(len(weight)):
        exact = weight[row].astype(np.float64)
        for column in range(len(exact)):
            inverse = np.linalg.inv(moment[column:, column:])
            integers[row, column] = to_integers(exact[column], scale[row], 8)[0]
            error = exact[column] - integers[row, column] * np.float64(scale[row, 0])
            exact[column:] -= error * inverse[0] / inverse[0, 0]
    return integers


@pytest.mark.parametrize("columns", [1, 7, 70])
def test_errors_are_passed_on_as_by_the_naive_inverse(columns):
    weight, moment = problem(0, 5, columns)
    moment, plain = damped_moment(moment, 0.01), rows_to_nearest(weight, 8, columns)
    rows = pass_on(weight.astype(np.float64), moment, plain, 8)
    np.testing.assert_array_equal(rows.values, naive_obq(weight, moment, plain.scale))


@pytest.mark.parametrize(("bits", "block"), [(8, 70), (4, 32)])
def test_passing_errors_on_alone_is_better_than_rounding_to_the_nearest_in_every_block(bits, block):
    weight, moment = problem(5, 40, 70)
    moment, plain = damped_moment(moment, 0.01), rows_to_nearest(weight, bits, block)
    rows = pass_on(weight.astype(np.float64), moment, plain, bits)
    before, after = (product_errors(weight.astype(np.float64), one, moment).sum() for one in (plain, rows))
    assert after < 0.7 * before


def test_the_scale_of_a_block_of_4_bits_is_the_best_of_all_shares_of_its_peak():
    weight = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    plain = rows_to_nearest(weight, 4, 32)
    rows = pass_on(weight.astype(np.float64), np.eye(32), plain, 4)  # nothing to pass on
    errors = []
    for percent in range(50, 105, 5):
        scale = usable_scale(np.abs(weight).max(1, keepdims=True) * percent / 100, 4)
        errors.append(((weight - to_integers(weight, scale, 4) * scale) ** 2).sum(1))
    np.testing.assert_allclose(((weight - rows.weight) ** 2).sum(1), np.min(errors, 0), rtol=1e-3)
    assert (rows.scale < plain.scale).any()


@pytest.mark.parametrize(("bits", "block"), [(8, 70), (4, 32)])
def test_no_weight_can_move_to_a_neighbouring_integer_and_gain(bits, block):
    weight, moment = problem(1, 4, 70)
    moment = damped_moment(moment, 0.01)
    rows = descend(weight.astype(np.float64), moment, rows_to_nearest(weight, bits, block), bits)
    least = product_errors(weight.astype(np.float64), rows, moment)
    for column in range(70):
        for change in (-1, 1):
            moved = rows.values.copy()
            moved[:, column] = np.clip(moved[:, column] + change, -largest(bits), largest(bits))
            other = type(rows)(moved, rows.scale, rows.block)
            assert (product_errors(weight.astype(np.float64), other, moment) >= least * (1 - 1e-9)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 80), st.sampled_from([(8, 0), (4, 16), (4, 32)]))
def test_no_row_is_worse_than_to_the_nearest(seed, count, columns, form):
    bits, block = form[0], form[1] or columns
    weight, moment = problem(seed, count, columns, samples=30)
    damped = damped_moment(moment, 0.01)
    ours = product_errors(weight, second_order(weight, moment, bits, block), damped)
    plain = product_errors(weight, rows_to_nearest(weight, bits, block), damped)
    assert (ours <= plain * (1 + 1e-9)).all()


def test_inputs_that_depend_on_each_other_make_the_error_several_times_smaller():
    weight, moment = problem(2, 32, 64)
    for bits, block in ((8, 64), (4, 32)):
        ours = product_errors(weight, second_order(weight, moment, bits, block), moment).sum()
        assert ours < 0.6 * product_errors(weight, rows_to_nearest(weight, bits, block), moment).sum()


def test_weights_of_zero_stay_zero():
    weight, moment = problem(3, 8, 40)
    weight[np.random.default_rng(0).random(weight.shape) < 0.5] = 0
    for bits, block in ((8, 40), (4, 16)):
        assert (second_order(weight, moment, bits, block).values[weight == 0] == 0).all()


@pytest.mark.parametrize(("bits", "block"), [(8, 40), (4, 16)])
def test_what_is_rounded_already_is_not_changed(bits, block):
    weight, moment = problem(4, 8, 40)
    once = rows_to_nearest(weight, bits, block)
    again = second_order(once.weight.astype(np.float32), moment, bits, block)
    np.testing.assert_array_equal(again.weight, once.weight)


def test_inputs_that_are_always_zero_do_no_harm():
    weight, moment = problem(5, 8, 20)
    moment[3], moment[:, 3] = 0, 0
    assert np.abs(second_order(weight, moment, 8, 20).weight - weight).max() < 0.2
    nothing = second_order(weight, np.zeros((20, 20)), 8, 20)
    np.testing.assert_array_equal(nothing.values, rows_to_nearest(weight, 8, 20).values)


def test_rows_to_the_nearest_are_those_of_the_file():
    weight, _ = problem(6, 9, 50)
    np.testing.assert_array_equal(rows_to_nearest(weight, 8, 50).values, to_8_bits(weight, (0,)).values)
    rows = rows_to_nearest(weight, 4, 16)
    blocks = np.pad(weight, ((0, 0), (0, 14))).reshape(9, 4, 16)
    scale = np.abs(blocks).max(2, keepdims=True) / 7
    np.testing.assert_allclose(rows.scale, scale[..., 0], rtol=5e-4)
    assert np.abs(rows.weight - weight).max() <= 0.501 * scale.max()

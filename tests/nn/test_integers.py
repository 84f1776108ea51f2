"""Weights in few bits: scales, integers and bytes against naive loops, and what is on a grid already stays there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn import integers
from compressor.nn.integers import (
    as_stored,
    in_blocks,
    largest,
    rows_to_nearest,
    to_8_bits,
    to_integers,
    usable_scale,
)

BITS = (2, 3, 4, 5, 6, 8)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_integers_are_symmetric():
    assert [largest(bits) for bits in BITS] == [1, 3, 7, 15, 31, 127]


@pytest.mark.parametrize("channels", [(0,), (1,), (2,), (0, 1), (1, 2), ()])
def test_each_index_of_the_channels_has_the_scale_of_its_own_largest_weight(channels):
    weight = drawn(3, 4, 5)
    found = to_8_bits(weight, channels)
    for place in np.ndindex(weight.shape):
        mine = tuple(place[axis] if axis in channels else slice(None) for axis in range(3))
        scale = np.float32(np.float16(np.abs(weight[mine]).max() / np.float32(127)))
        kept = tuple(place[axis] if axis in channels else 0 for axis in range(3))
        assert found.scale[kept] == scale
        assert found.values[place] == np.clip(np.rint(weight[place] / scale), -127, 127)
    np.testing.assert_array_equal(found.weight, found.values * found.scale)
    assert found.weight.dtype == np.float32


@pytest.mark.parametrize("bits", BITS)
def test_integers_are_the_nearest_and_clipped_alike_on_both_sides(bits):
    most = largest(bits)
    weight = np.array([0.0, 0.49, 0.51, -0.51, 1.0, most, most + 0.4, most + 9.0, -most - 9.0], np.float32)
    wanted = [0, 0, 1, -1, 1, most, most, most, -most]
    for scale in (1.0, 0.125):
        found = to_integers(weight * np.float32(scale), np.float32(scale), bits)
        assert found.tolist() == wanted
        assert found.dtype == np.int8


NORMAL = float(np.finfo(np.float16).smallest_normal)
MOST = float(np.finfo(np.float16).max)


@pytest.mark.parametrize(
    ("scale", "half"),
    [(0.1, True), (NORMAL, True), (0.99 * NORMAL, False), (MOST, True), (1.01 * MOST, False), (1e-30, False)],
)
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_halves_if_these_are_normal_and_exact_otherwise(scale, half, bits):
    peak = np.array([scale * largest(bits)], np.float32)
    exact = peak / np.float32(largest(bits))
    found = usable_scale(peak, bits)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, exact.astype(np.float16).astype(np.float32) if half else exact)
    assert as_stored(found).dtype == (np.float16 if half else np.float32)
    np.testing.assert_array_equal(as_stored(found).astype(np.float32), found)


def test_a_channel_of_zeros_has_scale_one_and_stays_zero():
    weight = drawn(3, 5)
    weight[1] = 0
    found = to_8_bits(weight, (0,))
    assert found.scale[1, 0] == 1.0
    assert not found.weight[1].any()
    assert usable_scale(np.zeros(2), 4).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("columns", "block"), [(5, 5), (12, 4), (13, 4), (3, 8)])
def test_each_block_of_a_row_is_rounded_alone(bits, columns, block):
    weight = drawn(3, columns, seed=columns)
    rows = rows_to_nearest(weight, bits, block)
    assert rows.scale.shape == (3, -(-columns // block))
    for row, start in np.ndindex(3, rows.scale.shape[1]):
        part = slice(start * block, (start + 1) * block)
        alone = rows_to_nearest(weight[row : row + 1, part], bits, block)
        np.testing.assert_array_equal(alone.weight[0], rows.weight[row, part])
        scale = usable_scale(np.abs(weight[row, part]).max(keepdims=True), bits)
        assert rows.scale[row, start] == scale
        np.testing.assert_array_equal(rows.values[row, part], to_integers(weight[row, part], scale, bits))
        assert (rows.scale_of_each[row, part] == scale).all()
    assert np.abs(rows.weight - weight).max() <= 0.502 * rows.scale.max()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(BITS), st.integers(1, 127), st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_what_is_a_scale_times_integers_already_is_kept_whatever_its_largest_integer(bits, peak, seed, columns):
    """Steps that were learned in training clip, or do not reach their largest integer."""
    draws = np.random.default_rng(seed)
    peak = min(peak, largest(bits))
    integers = draws.integers(-peak, peak, size=(2, columns), endpoint=True)
    integers[:, draws.integers(columns)] = peak
    scale = draws.uniform(0.001, 3.0, size=(2, 1)).astype(np.float16).astype(np.float32)
    weight = (integers * scale).astype(np.float32)
    np.testing.assert_array_equal(rows_to_nearest(weight, bits, columns).weight.astype(np.float32), weight)


def test_what_is_on_no_grid_of_a_half_is_rounded_by_its_peak():
    weight = np.array([[1.0, 0.3333333]], np.float32)
    rows = rows_to_nearest(weight, 8, 2)
    assert rows.scale[0, 0] == np.float32(np.float16(1 / 127))
    on_grid_of_no_half = (np.float32(0.1) * np.array([[5.0, 3.0, 1.0]])).astype(np.float32)  # 0.1 is no half
    rows = rows_to_nearest(on_grid_of_no_half, 4, 3)
    assert rows.scale[0, 0] == np.float32(np.float16(on_grid_of_no_half.max() / np.float32(7)))


@pytest.mark.parametrize(("columns", "block"), [(32, 32), (64, 32), (40, 16), (5, 16)])
def test_two_values_share_a_byte_the_first_in_its_low_half(columns, block):
    rows = rows_to_nearest(drawn(3, columns), 4, block)
    found = in_blocks(rows)
    assert (found.shape, found.dtype) == ((3, -(-columns // block), block // 2), np.uint8)
    for row, column in np.ndindex(3, -(-columns // block) * block):
        byte = int(found[row, column // block, column % block // 2])
        half = byte >> 4 if column % 2 else byte & 15
        assert half - 8 == (rows.values[row, column] if column < columns else 0)


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_rounded_piece_by_piece_are_those_of_the_whole(monkeypatch, bits):
    weight = np.random.default_rng(0).normal(size=(23, 71)).astype(np.float32)
    block = 71 if bits == 8 else 32
    whole = rows_to_nearest(weight, bits, block)
    monkeypatch.setattr(integers, "_PIECE", 5 * 71)
    parts = rows_to_nearest(weight, bits, block)
    np.testing.assert_array_equal(parts.values, whole.values)
    np.testing.assert_array_equal(parts.scale, whole.scale)
    np.testing.assert_array_equal(parts.in_float32(), whole.weight.astype(np.float32))

"""Factors are the best of their rank, for the matrix or for what the data make of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.factorisation import HeadPairs, Inputs, Spectrum, largest_saving_rank, losses, rank_for_energy
from compressor.nn.least_squares import Moments
from tests.nn.tensors import normal
from tests.tolerances import SAME_FLOAT64

SIZES = st.integers(1, 13)
SEEDS = st.integers(0, 2**16)
FEW = settings(deadline=None, max_examples=40)


def inputs_of(samples, *, centred=False):
    """What the data (N, n) say."""
    moments = Moments(samples.size(1), 0, samples.device)
    moments.add(samples, samples[:, :0])
    return Inputs.of(moments, centred=centred)


@FEW
@given(SIZES, SIZES, SEEDS)
def test_the_errors_of_plain_factors_are_the_dropped_singular_values_in_both_norms(rows, columns, seed):
    weight = normal(rows, columns, seed=seed)
    values, spectrum = torch.linalg.svdvals(weight), Spectrum(weight)
    for rank in range(1, min(rows, columns) + 1):
        error = weight - spectrum.factors(rank).product
        dropped = values[rank:]
        torch.testing.assert_close(error.norm(), dropped.square().sum().sqrt(), atol=1e-9, rtol=0)
        torch.testing.assert_close(torch.linalg.matrix_norm(error, 2), max(dropped, default=values[:0].sum()),
                                   atol=1e-9, rtol=0)  # fmt: skip
        torch.testing.assert_close(spectrum.losses[rank], dropped.square().sum() / values.square().sum(),
                                   **SAME_FLOAT64)  # fmt: skip


@FEW
@given(SIZES, SIZES, SEEDS)
def test_full_rank_is_the_matrix_even_where_the_data_lie_in_a_subspace(rows, columns, seed):
    weight = normal(rows, columns, seed=seed)
    samples = normal(17, 1, seed=seed + 1) * normal(1, columns, seed=seed + 2)
    for inputs in (None, inputs_of(samples)):
        factors = Spectrum(weight, inputs).factors(min(rows, columns))
        torch.testing.assert_close(factors.product, weight, atol=1e-9, rtol=0)


@FEW
@given(SIZES, SIZES, SEEDS)
def test_whitened_factors_err_by_the_dropped_singular_values_on_the_data_and_never_more_than_plain_ones(
    rows, columns, seed
):
    weight = normal(rows, columns, seed=seed)
    mixing = normal(columns, columns, seed=seed + 1)
    samples = normal(101, columns, seed=seed + 2) @ (mixing * torch.logspace(0, -2, columns, dtype=torch.float64))
    spectrum, plain = Spectrum(weight, inputs_of(samples)), Spectrum(weight)
    optimum = torch.linalg.svdvals(weight @ samples.T / len(samples) ** 0.5)
    for rank in range(1, min(rows, columns) + 1):
        errors = [
            ((weight - one.factors(rank).product) @ samples.T).square().sum() / len(samples)
            for one in (spectrum, plain)
        ]
        whole = optimum.square().sum()
        torch.testing.assert_close(errors[0], optimum[rank:].square().sum(), atol=3e-6 * float(whole), rtol=0)
        assert errors[0] <= errors[1] + 3e-6 * whole


def test_the_bias_takes_up_the_mean_of_what_is_lost():
    linear, samples = nn.Linear(7, 11).double(), 3 + normal(101, 7)
    factors = Spectrum(linear.weight, inputs_of(samples, centred=True)).factors(2)
    layer = LowRankLinear.from_linear(linear, factors)
    lost = (linear(samples) - layer(samples)).detach()
    assert float(lost.mean(0).abs().max()) < 1e-12
    around_zero = Spectrum(linear.weight, inputs_of(samples)).factors(2)
    assert lost.norm() < (linear(samples) - LowRankLinear.from_linear(linear, around_zero)(samples)).norm()


def test_factors_are_balanced():
    factors = Spectrum(normal(11, 7), inputs_of(normal(23, 7, seed=1))).factors(5)
    torch.testing.assert_close(factors.up.norm(dim=0), factors.down.norm(dim=1), **SAME_FLOAT64)


def test_a_matrix_of_zeros_has_no_energy_to_lose():
    spectrum = Spectrum(torch.zeros(5, 3))
    assert spectrum.losses.tolist() == [0.0] * 4
    assert rank_for_energy(spectrum.losses, 1.0) == 1
    assert not spectrum.factors(1).product.any()


@pytest.mark.parametrize(("energy", "rank"), [(0.01, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)])
def test_the_rank_for_an_energy_is_the_smallest_one_that_keeps_it(energy, rank):
    lost = losses(torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64))
    assert rank_for_energy(lost, energy) == rank


@FEW
@given(st.integers(1, 99), st.integers(1, 99))
def test_the_largest_rank_that_saves_parameters(rows, columns):
    rank = largest_saving_rank(rows, columns)
    assert rank * (rows + columns) < rows * columns <= (rank + 1) * (rows + columns)


# --- heads -----------------------------------------------------------------------------------------------------------

HEADS, WIDTH = 3, 5


def pairs(seed=0, p=7, q=11):
    return normal(HEADS, WIDTH, p, seed=seed), normal(HEADS, WIDTH, q, seed=seed + 1)


def approximated(left, right, maps):
    first, second = maps
    return left.mT @ first @ second.mT @ right


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(("p", "q"), [(7, 11), (3, 2), (2, 13)])
def test_all_features_of_a_head_give_the_products_back(joint, p, q):
    left, right = pairs(p=p, q=q)
    found = approximated(left, right, HeadPairs(left, right, joint=joint).maps(WIDTH))
    torch.testing.assert_close(found, left.mT @ right, atol=1e-9, rtol=0)


@FEW
@given(SIZES, SIZES, SEEDS)
def test_joint_products_err_by_the_dropped_singular_values_and_never_more_than_each_matrix_cut_alone(p, q, seed):
    left, right = pairs(seed, p, q)
    joint, alone = (HeadPairs(left, right, joint=joint) for joint in (True, False))
    whole = left.mT @ right
    values = torch.linalg.svdvals(whole)  # (h, k)
    for rank in range(1, WIDTH + 1):
        errors = [(whole - approximated(left, right, one.maps(rank))).square().sum() for one in (joint, alone)]
        torch.testing.assert_close(errors[0], values[:, rank:].square().sum(), atol=1e-9, rtol=0)
        assert errors[0] <= errors[1] + 1e-9
        for one, error in zip((joint, alone), errors, strict=True):
            torch.testing.assert_close(one.losses[rank], error / whole.square().sum(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("joint", [True, False])
def test_heads_without_anything_in_them_give_nothing_and_no_nan(joint):
    left, right = pairs()
    empty = HeadPairs(left * 0, right, joint=joint)
    maps = empty.maps(2)
    assert all(bool(part.isfinite().all()) for part in maps)
    assert not approximated(left * 0, right, maps).any()
    assert empty.losses.tolist() == [0.0] * (WIDTH + 1)


# --- budget ----------------------------------------------------------------------------------------------------------

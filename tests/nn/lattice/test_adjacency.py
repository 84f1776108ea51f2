"""From recurrent weights to a relation, against loops and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.nn.lattice.adjacency import binary, continuous, percentile, strengths


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_strength_is_the_largest_or_the_norm_over_the_gates(gates, dtype):
    weight = torch.randn(gates * 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    largest, norm = strengths(weight, gates), strengths(weight, gates, "l2")
    for i in range(5):
        for j in range(5):
            entries = weight[i::5, j].double()  # row g * 5 + i of every gate g
            assert largest[i, j].item() == entries.abs().max().item()
            assert norm[i, j].item() == pytest.approx(entries.square().sum().sqrt().item(), rel=1e-6)


def test_an_input_matrix_has_a_strength_for_each_source():
    weight = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.0, 4.0], [-5.0, 1.0, 0.0], [0.0, 0.0, -7.0]])
    assert strengths(weight, 2).tolist() == [[5.0, 2.0, 0.0], [3.0, 0.0, 7.0]]


@pytest.mark.parametrize(("shape", "gates"), [((7, 5), 2), ((5, 5), 3), ((0, 0), 1), ((10,), 2)])
def test_a_matrix_of_another_shape_is_refused(shape, gates):
    with pytest.raises(UsageError, match=rf"a matrix of {gates} gate\(s\) has {gates} \* n rows"):
        strengths(torch.zeros(shape), gates)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(UsageError, match="not finite"):
        strengths(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.floats(0, 100).map(lambda value: round(value, 2)), st.integers(0, 99))
def test_a_percentile_is_that_of_numpy(count, percent, seed):
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert percentile(values, percent).item() == pytest.approx(np.percentile(values.numpy(), percent), abs=1e-12)


def test_a_percentile_that_falls_on_an_entry_is_that_entry():
    values = torch.linspace(0, 1, 101)
    assert all(percentile(values, percent / 1.0) == values[percent] for percent in range(101))


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_percentiles_outside_the_range_are_refused(percent):
    with pytest.raises(UsageError, match="is out of range"):
        percentile(torch.zeros(3), percent)


def test_half_of_the_connections_pass_the_median():
    matrix = strengths(torch.randn(11, 11, generator=torch.Generator().manual_seed(0)), 1)
    assert binary(matrix, percentile(matrix, 50)).sum() == 60  # of 121; the median itself does not pass
    assert binary(matrix, 0.5).equal(matrix > 0.5)


def test_degrees_are_shares_of_the_largest_strength():
    assert continuous(torch.tensor([[1.0, 4.0], [0.0, 2.0]])).equal(torch.tensor([[0.25, 1.0], [0.0, 0.5]]))
    assert not continuous(torch.zeros(3, 3)).any()

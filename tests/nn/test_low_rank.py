"""Factors are the best of their rank, for the matrix or for what the data make of it, and layers of them compute it."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from compressor.errors import CheckpointError, MethodError, UsageError
from compressor.nn.least_squares import Moments
from compressor.nn.low_rank import (
    HeadPairs,
    Inputs,
    LowRankLinear,
    Spectrum,
    largest_saving_rank,
    losses,
    rank_for_energy,
)
from compressor.nn.rank_budget import Candidate, allocate_ranks
from compressor.nn.recurrent.factored import LowRankRecurrent
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

SIZES = st.integers(1, 13)
SEEDS = st.integers(0, 2**16)
FEW = settings(deadline=None, max_examples=40)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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


def test_heads_without_anything_in_them_give_nothing_and_no_nan():
    left, right = pairs()
    maps = HeadPairs(left * 0, right).maps(2)
    assert all(bool(part.isfinite().all()) for part in maps)
    assert not approximated(left * 0, right, maps).any()


# --- budget ----------------------------------------------------------------------------------------------------------


def matrix(rows, columns, seed):
    values = torch.linalg.svdvals(normal(rows, columns, seed=seed) * torch.logspace(0, -seed % 3, columns))
    return Candidate(
        rows * columns, rows + columns, losses(values.square()).tolist(), largest_saving_rank(rows, columns)
    )


def parameters(candidates, ranks):
    return sum(c.dense if ranks[name] is None else ranks[name] * c.per_rank for name, c in candidates.items())


def lost(candidates, ranks):
    return sum(0.0 if ranks[name] is None else c.losses[ranks[name]] for name, c in candidates.items())


@FEW
@given(st.integers(0, 50), st.floats(0.0, 1.0))
def test_a_budget_is_kept_and_what_is_left_of_it_does_not_pay_for_another_rank(seed, fraction):
    candidates = {str(i): matrix(*sizes, seed + i) for i, sizes in enumerate([(11, 7), (13, 13), (5, 23)])}
    least = sum(candidate.per_rank for candidate in candidates.values())
    dense = sum(candidate.dense for candidate in candidates.values())
    budget = least + int(fraction * (dense - least))
    ranks = allocate_ranks(candidates, budget)
    left = budget - parameters(candidates, ranks)
    assert left >= 0
    for name, candidate in candidates.items():
        rank = ranks[name]
        assert rank is None or 1 <= rank <= candidate.most
        assert rank is None or rank == candidate.most or candidate.per_rank > left


def test_a_budget_is_spent_nearly_as_well_as_by_trying_everything():
    candidates = {str(i): matrix(*sizes, i) for i, sizes in enumerate([(11, 7), (13, 13), (5, 23)])}
    every = [[None, *range(1, c.most + 1)] for c in candidates.values()]
    excess = []
    for budget in range(80, 361, 20):
        tried = [dict(zip(candidates, ranks, strict=True)) for ranks in itertools.product(*every)]
        best = min(lost(candidates, ranks) for ranks in tried if parameters(candidates, ranks) <= budget)
        excess.append(lost(candidates, allocate_ranks(candidates, budget)) - best)
    assert max(excess) < 0.1
    assert sum(one < 1e-9 for one in excess) >= 13  # of 15


def test_a_budget_of_everything_changes_nothing_and_one_below_rank_1_is_refused():
    candidates = {"a": matrix(11, 7, 0), "b": matrix(13, 13, 1)}
    assert allocate_ranks(candidates, 77 + 169) == {"a": None, "b": None}
    assert allocate_ranks(candidates, 18 + 26) == {"a": 1, "b": 1}
    with pytest.raises(UsageError, match="43 parameters are fewer than the 44 of rank 1 everywhere"):
        allocate_ranks(candidates, 43)


# --- layers ----------------------------------------------------------------------------------------------------------


def test_a_low_rank_linear_is_the_linear_layer_of_its_product_with_gradients_to_both_factors():
    linear = nn.Linear(7, 11).double()
    layer = LowRankLinear.from_linear(linear, Spectrum(linear.weight).factors(7))
    x = normal(2, 3, 7).requires_grad_()
    found = layer(x)
    torch.testing.assert_close(found, linear(x), **SAME_FLOAT64)
    torch.testing.assert_close(found, nn.functional.linear(x, layer.weight, layer.bias), **SAME_FLOAT64)
    found.square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in layer.parameters())


def test_a_frozen_layer_stays_frozen_and_a_layer_without_a_bias_has_none():
    linear = nn.Linear(7, 11, bias=False).requires_grad_(False)
    layer = LowRankLinear.from_linear(linear, Spectrum(linear.weight).factors(3))
    assert layer.bias is None
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("change", [{"rank": 0}, {"rank": True}, {"bias": 1}, {"more": 1}, {"rank": 1 << 24}])
def test_a_record_of_a_linear_layer_that_is_not_valid_is_refused(change):
    record = LowRankLinear(7, 11, 3).record()
    with pytest.raises(CheckpointError, match="the record of a layer is not valid"):
        LowRankLinear.from_record(record | change)


INPUT, HIDDEN, BATCH, TIME = 5, 7, 3, 11
MODES = {
    "RNN_TANH": nn.RNN,
    "RNN_RELU": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "GRU": nn.GRU,
    "LSTM": nn.LSTM,
}
SHAPES = [
    {"num_layers": 1, "bidirectional": False, "bias": True},
    {"num_layers": 2, "bidirectional": True, "bias": True},
    {"num_layers": 2, "bidirectional": False, "bias": False},
]


def recurrent(mode, **options):
    torch.manual_seed(0)
    return MODES[mode](INPUT, HIDDEN, **options).double()


def factored(module, rank, kinds=("weight_ih", "weight_hh")):
    chosen = {n: p for n, p in module.named_parameters() if n.startswith(kinds)}
    found = {name: Spectrum(weight).factors(min(rank, *weight.shape)) for name, weight in chosen.items()}
    return LowRankRecurrent.from_module(module, found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_full_rank_is_the_original_in_every_form_of_call(mode, shape):
    module = recurrent(mode, **shape)
    layer = factored(module, 4 * HIDDEN)
    x, lengths = normal(TIME, BATCH, INPUT), torch.tensor([3, 11, 1])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    states = normal(module.num_layers * (1 + module.bidirectional), BATCH, HIDDEN, seed=1)
    pair = (states, -states) if mode == "LSTM" else states
    one = tuple(part[:, 0] for part in pair) if mode == "LSTM" else pair[:, 0]
    for call in ((x,), (x, pair), (packed,), (packed, pair), (x[:, 0],), (x[:, 0], one)):
        torch.testing.assert_close(layer(*call), module(*call), atol=1e-9, rtol=0)
    module.batch_first = layer.batch_first = True
    torch.testing.assert_close(layer(x.transpose(0, 1)), module(x.transpose(0, 1)), atol=1e-9, rtol=0)
    torch.testing.assert_close(layer(x[:, 0]), module(x[:, 0]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kinds", [("weight_hh",), ("weight_ih",), ("weight_ih", "weight_hh")])
@pytest.mark.parametrize("mode", MODES)
def test_the_loop_over_time_on_the_factors_gives_the_same_with_the_same_gradients(mode, kinds, shape):
    layer = factored(recurrent(mode, **shape), 3, kinds)
    x = normal(TIME, BATCH, INPUT).requires_grad_()
    leaves = [x, *layer.parameters()]
    results = []
    for run in (layer.forward, layer.naive):
        output, last = run(x)
        ends = last if mode == "LSTM" else (last,)
        loss = (output * normal(*output.shape, seed=2)).sum() + sum(end.square().sum() for end in ends)
        results.append((output, *ends, *torch.autograd.grad(loss, leaves)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **SAME_GRADIENT)


def test_only_the_named_matrices_are_factored_and_the_biases_stay():
    module = recurrent("GRU", num_layers=2)
    layer = LowRankRecurrent.from_module(module, {"weight_hh_l1": Spectrum(module.weight_hh_l1).factors(2)})
    assert [layer.part(index, 0).ranks for index in range(2)] == [(None, None), (None, 2)]
    assert layer.part(1, 0).hidden.bias.equal(module.bias_hh_l1)
    assert layer.part(0, 0).hidden.weight.equal(module.weight_hh_l0)


def test_a_record_gives_a_layer_that_takes_the_weights():
    layer = factored(recurrent("LSTM", num_layers=2, bidirectional=True, batch_first=True), 3)
    again = LowRankRecurrent.from_record(json.loads(json.dumps(layer.record())), dtype=torch.float64)
    again.load_state_dict(layer.state_dict())
    x = normal(BATCH, TIME, INPUT)
    assert torch.equal(again(x)[0], layer(x)[0])
    assert again.extra_repr() == layer.extra_repr()
    assert copy.deepcopy(layer)(x)[0].equal(layer(x)[0])


@pytest.mark.parametrize(
    "change", [{"ranks": []}, {"ranks": [[{"input": 0, "hidden": None}]]}, {"mode": "GRUCELL"}, {"hidden_size": 7.0}]
)
def test_a_record_of_a_recurrent_layer_that_is_not_valid_is_refused(change):
    record = factored(recurrent("GRU"), 3).record()
    with pytest.raises(CheckpointError, match="the record of a layer is not valid"):
        LowRankRecurrent.from_record(record | change)


def test_layers_with_other_numbers_of_directions_are_no_record():
    record = factored(recurrent("GRU", num_layers=2, bidirectional=True), 3).record()
    record["ranks"][1].pop()
    with pytest.raises(CheckpointError, match="the same number of directions"):
        LowRankRecurrent.from_record(record)


def test_an_lstm_with_projections_is_refused():
    module = nn.LSTM(INPUT, HIDDEN, proj_size=3)
    with pytest.raises(MethodError, match="in low rank already"):
        LowRankRecurrent.from_module(module, {})

"""Recurrent layers of factors compute what the products of the factors compute."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from compressor.errors import CheckpointError, MethodError
from compressor.nn.factorisation import Spectrum
from compressor.nn.recurrent.factored import LowRankRecurrent
from tests.nn.recurrent.modes import MODES
from tests.nn.tensors import normal
from tests.tolerances import SAME_GRADIENT

INPUT, HIDDEN, BATCH, TIME = 5, 7, 3, 11
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


@pytest.mark.parametrize("mode", MODES)
def test_options_that_are_left_out_are_those_of_pytorch(mode):
    theirs = MODES[mode](INPUT, HIDDEN)
    own = LowRankRecurrent(mode, INPUT, HIDDEN, [[(2, 2)]])
    assert (own.batch_first, own.dropout, own.bias) == (theirs.batch_first, theirs.dropout, theirs.bias)

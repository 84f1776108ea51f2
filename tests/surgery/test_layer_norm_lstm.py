"""The layer-normalised LSTM loses units as PyTorch's layers do; those that are left are normalised as before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressor.nn.recurrent.layer_norm import LayerNormLSTM, LayerNormLSTMCell
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import silence_units
from tests.surgery.rebuilding import rebuilt_from
from tests.surgery.test_random_networks import living
from tests.surgery.topologies import (
    INPUT,
    AttentionDecoder,
    Bidirectional,
    CellLoop,
    EveryStep,
    HandOver,
    LastState,
    LayerNormBehind,
    NoBias,
    Packed,
    Stacked,
    SummedDirections,
    TwoModules,
    ZeroState,
)  # fmt: skip

TOPOLOGIES = [
    AttentionDecoder, Bidirectional, EveryStep, HandOver, LastState, LayerNormBehind, NoBias, Packed, Stacked,
    SummedDirections, TwoModules,
]  # fmt: skip
SHAPES = ((2, 3), (4, 7))


def model_of(topology, cell=LayerNormLSTM):
    torch.manual_seed(0)
    model = topology(cell).double().eval()
    for name, parameter in model.named_parameters():
        if "scale" in name or "shift" in name:
            nn.init.uniform_(parameter, 0.1, 0.9)
    return model


def inputs(batch, length):
    generator = torch.Generator().manual_seed(batch)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator).index_fill(0, torch.tensor([0]), length)
    return torch.randn(batch, length, INPUT, generator=generator, dtype=torch.float64), lengths


def names(model):
    kinds = (LayerNormLSTM, LayerNormLSTMCell)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_half_of_the_units_go_and_the_record_rebuilds_it(topology):
    model = model_of(topology)
    done = prune(model, {}, [inputs(*shape) for shape in SHAPES], names=names(model), amount=Amount(ratio=0.5))
    fresh = rebuilt_from(done, copy.deepcopy(model))
    torch.testing.assert_close(fresh(*inputs(3, 11)), done.model(*inputs(3, 11)))
    assert sum(p.numel() for p in fresh.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


def test_a_cell_in_a_loop_loses_units():
    model = model_of(CellLoop, LayerNormLSTMCell)
    done = prune(model, {}, [inputs(*shape) for shape in SHAPES], names=["rnn"], amount=Amount(count=4))
    assert done.model.rnn.hidden_size == 9
    assert done.model.rnn.norm_width == 13


@pytest.mark.parametrize("topology", [Stacked, Bidirectional])
def test_dead_units_leave_without_a_trace(topology):
    model = model_of(topology)
    silence_units(model, 3)
    before = model(*inputs(3, 11))
    examples = [inputs(*shape) for shape in SHAPES]
    smaller = prune(model, {}, examples, names=["rnn"], amount=Amount(count=3), scorer=living).model
    torch.testing.assert_close(smaller(*inputs(3, 11)), before, atol=1e-12, rtol=0)


def test_layers_of_different_sizes_become_uneven():
    model = model_of(Stacked)
    done = prune(
        model, {}, [inputs(*shape) for shape in SHAPES], names=["rnn"], amount=Amount(ratio=0.4, scope="global")
    )
    assert len({size for layer in done.model.rnn.hidden_sizes for size in layer}) > 1
    assert {float(part.norm_width_l0) for part in done.model.rnn.layers} == {13.0}


def test_consumers_are_refitted():
    model = model_of(Stacked)
    examples = [inputs(*shape) for shape in SHAPES]
    plain = prune(model, {}, examples, names=["rnn"], amount=Amount(ratio=0.5)).model
    done = prune(model, {}, examples, names=["rnn"], amount=Amount(ratio=0.5), calibration=[inputs(16, 9)] * 4)
    wanted = model(*inputs(8, 9))
    errors = [(smaller(*inputs(8, 9)) - wanted).norm().item() for smaller in (plain, done.model)]
    assert errors[1] < 0.8 * errors[0], (errors, done.notes)


def test_zeros_as_a_state_are_followed():
    class Zeros(ZeroState):
        def join(self, x, lengths):
            start = x.new_zeros(1, x.size(0), self.rnn.hidden_size)
            return self.rnn(x, (start, start))[0]

    model = model_of(Zeros)
    done = prune(model, {}, [inputs(*shape) for shape in SHAPES], names=["rnn"], amount=Amount(count=5))
    assert done.model.rnn.hidden_size == 8

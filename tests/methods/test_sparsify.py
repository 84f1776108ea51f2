"""`sparsify`: what is to go is pressed, through every layer that takes it in, and nothing is lost by removing it."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.methods.sparsify import Sparsify
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.penalised import penalised_units
from tests.methods.conftest import CHANNELS, CLASSES, HIDDEN, LENGTH, SignTask, make_context, same, weights

TRAINING = Retrain(epochs=4, lr=0.01)


class Convolutional(nn.Module):
    """A convolution with batch normalisation in front of an LSTM."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(CHANNELS, 6, 1), nn.BatchNorm1d(6)
        self.lstm, self.head = nn.LSTM(6, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        features = torch.relu(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        return self.head(self.lstm(features)[0][:, -1])


def test_units_that_go_carry_nearly_nothing_and_their_removal_changes_little(state, context):
    result = Sparsify(ratio=0.4, strength=20.0, retrain=TRAINING).apply(state, context)
    pressed = result.state.model
    assert result.facts["norm_share_before"] > 0.2
    assert result.facts["norm_share_after"] < 1e-3
    assert "4 of 14 units" in result.notes[-1]

    smaller = Magnitude(prune="units", ratio=0.4, compensate=False).apply(result.state, context).state.model
    x = torch.randn(3, LENGTH, CHANNELS)
    assert smaller.rnn.hidden_size == 5
    assert torch.allclose(smaller(x), pressed(x), atol=1e-2)


@pytest.mark.parametrize("penalty", ["group_norm", "lasso"])
def test_every_penalty_concentrates_the_weights(state, context, penalty):
    result = Sparsify(ratio=0.4, penalty=penalty, strength=3.0, retrain=TRAINING).apply(state, context)
    assert result.facts["norm_share_after"] < result.facts["norm_share_before"]
    assert [change.name for change in result.changes] == ["rnn", "head"]


def test_the_model_that_went_in_stays_as_it_was(state, context):
    before = weights(state.model)
    Sparsify(ratio=0.4, retrain=TRAINING).apply(state, context)
    assert same(weights(state.model), before)


def test_the_same_seed_gives_the_same_bits(model, task):
    results = [
        Sparsify(ratio=0.4, retrain=TRAINING).apply(State(model), make_context(model, task)).state.model
        for _ in range(2)
    ]
    assert same(*(weights(result) for result in results))


def test_the_groups_of_an_lstm_reach_into_every_consumer():
    model = Convolutional().eval()
    units = penalised_units(model, (torch.randn(2, LENGTH, CHANNELS),), ["conv", "lstm"], Amount(0.5), ["conv", "lstm"])
    reached = {(item.parameter, item.axis) for item in units.groups.axes}
    assert reached == {
        ("conv.weight", 0),
        ("lstm.weight_ih_l0", 1),
        ("lstm.weight_ih_l0", 0),
        ("lstm.weight_hh_l0", 0),
        ("lstm.weight_hh_l0", 1),
        ("head.weight", 1),
    }
    assert [item.parameter for item in units.groups.scales] == ["norm.weight"]
    assert units.groups.layers.bincount().tolist() == [6, HIDDEN]
    assert int(units.groups.going.sum()) == 3 + 3


def test_scales_of_batch_normalisations_are_pressed(task):
    model = Convolutional().eval()
    step = Sparsify(targets=("conv",), ratio=0.5, penalty="norm_scale", strength=5.0, retrain=TRAINING)
    trained = step.apply(State(model), make_context(model, task)).state.model
    assert float(trained.norm.weight.detach().abs().sum()) < 0.8 * float(model.norm.weight.detach().abs().sum())


def test_scales_that_are_not_there_are_an_error(state, context):
    with pytest.raises(MethodError, match="no batch normalisation"):
        Sparsify(ratio=0.4, penalty="norm_scale", retrain=TRAINING).apply(state, context)


def test_weights_that_all_vanished_are_an_error(state, context):
    with pytest.raises(MethodError, match="did not concentrate"):
        Sparsify(ratio=0.4, penalty="lasso", strength=1e6, retrain=TRAINING).apply(state, context)


def test_targets_are_those_of_magnitude(state, context):
    with pytest.raises(MethodError, match="nope"):
        Sparsify(ratio=0.4, targets=("nope",), retrain=TRAINING).apply(state, context)


def test_options_of_another_penalty_are_refused():
    with pytest.raises(ValidationError, match="belongs to `penalty: group_norm`"):
        Sparsify(ratio=0.4, alpha=2.0, retrain=TRAINING)


def test_a_rehearsal_takes_a_handful_of_batches(model):
    task = SignTask()
    Sparsify(ratio=0.4, retrain=TRAINING).apply(State(model), make_context(model, task, quick=True))
    assert task.losses_taken == 4

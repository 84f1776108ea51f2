"""Computed weights become plain ones, and the model gives what it gave."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.utils as old
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from compressor.errors import TaskError
from compressor.nn.folding import fold

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3, padding=1)
        self.rnn = kind(5, 7, batch_first=True)
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        return self.head(self.rnn(self.conv(x.mT).mT)[0])


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


class Noisy(nn.Module):
    def forward(self, weight):
        return weight + torch.rand_like(weight)


def _old_weight_norm(net):
    for module, name in ((net.conv, "weight"), (net.rnn, "weight_hh_l0"), (net.head, "weight")):
        old.weight_norm(module, name)


def _new_weight_norm(net):
    for module, name in ((net.conv, "weight"), (net.rnn, "weight_hh_l0"), (net.head, "weight")):
        parametrizations.weight_norm(module, name)


def _spectral(net):
    old.spectral_norm(net.conv)
    parametrizations.spectral_norm(net.head)
    parametrizations.spectral_norm(net.rnn, "weight_ih_l0")


def _orthogonal(net):
    parametrizations.orthogonal(net.head)


def _stacked(net):
    parametrizations.weight_norm(net.head)
    prune.l1_unstructured(net.rnn, "weight_ih_l0", 0.3)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("compute", [_old_weight_norm, _new_weight_norm, _spectral, _orthogonal, _stacked])
def test_outputs_and_parameters_are_those_of_a_plain_model(kind, compute):
    torch.manual_seed(3)
    net = Net(kind)
    plain = [name for name, _ in net.named_parameters()]
    compute(net)
    changed = {name for name in plain if name not in dict(net.named_parameters())}
    net.eval()
    x = torch.randn(2, 11, 3)
    before = net(x)
    folded = fold(net)
    assert [name for name, _ in net.named_parameters()] == plain
    assert type(net.rnn) is kind
    assert torch.equal(net(x), before)
    assert torch.equal(copy.deepcopy(net)(x), before)
    told = {name for note in folded.notes for name in note.partition(": ")[2].split(", ")}
    assert told == changed


def test_masks_of_pruning_become_masks_by_parameter():
    net = Net(nn.GRU)
    prune.random_unstructured(net.rnn, "weight_hh_l0", 0.5)
    prune.ln_structured(net.head, "weight", 1, n=2, dim=0)
    expected = {"rnn.weight_hh_l0": net.rnn.weight_hh_l0_mask.bool(), "head.weight": net.head.weight_mask.bool()}
    masks = fold(net.eval()).masks
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    assert not net.rnn.weight_hh_l0[~masks["rnn.weight_hh_l0"]].any()


def test_a_parametrization_of_ones_own_is_folded_and_named():
    net = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    assert fold(net.eval()).notes == ("`Symmetric` folded into plain weights: 0.weight",)
    assert torch.equal(net[0].weight, net[0].weight.mT)


def test_a_weight_that_is_random_in_evaluation_mode_is_refused_by_name():
    net = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(net[0], "weight", Noisy())
    with pytest.raises(TaskError, match=r"`0.weight` differs from call to call \(parametrized by `Noisy`\)"):
        fold(net.eval())


def test_weights_that_a_wrapper_sets_before_each_call_are_refused_by_name():
    class WeightDrop(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 5)
            self.raw = nn.Parameter(self.rnn.weight_hh_l0.data)
            del self.rnn._parameters["weight_hh_l0"]

        def forward(self, x):
            self.rnn.weight_hh_l0 = nn.functional.dropout(self.raw, 0.5, self.training)
            return self.rnn(x)[0]

    with pytest.raises(TaskError, match=r"`rnn.weight_hh_l0` is not a parameter: some code computes it"):
        fold(WeightDrop().eval())


def test_a_plain_model_is_left_alone():
    net = Net(nn.LSTM).eval()
    before = list(net.state_dict())
    assert fold(net).notes == ()
    assert list(net.state_dict()) == before

"""Layers that keep their weight transposed become nn.Linear if they compute one."""

import copy

import pytest
import torch
from torch import nn

from compressor.nn.folding import fold
from compressor.nn.transposed import replace_transposed


class Conv1D(nn.Module):
    """x W + b, W of (inputs, outputs), times a factor."""

    def __init__(self, inputs, outputs, *, bias=True, factor=1.0):
        super().__init__()
        self.nf, self.factor = outputs, factor
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None

    def forward(self, x):
        y = x @ self.weight
        return self.factor * (y if self.bias is None else y + self.bias)


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.first, self.second = Conv1D(3, 5, **options), Conv1D(5, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("bias", [True, False])
def test_the_outputs_stay_and_a_note_names_them(bias):
    model = Net(bias=bias).eval()
    before, x = copy.deepcopy(model), torch.randn(2, 7, 3)
    folded = fold(model)
    assert isinstance(model.first, nn.Linear)
    assert (model.first.bias is None) != bias
    assert folded.notes == ("`Conv1D`, a product x W, turned into nn.Linear: first, second",)
    torch.testing.assert_close(model(x), before(x))
    assert not any(parameter.requires_grad is False for parameter in model.parameters())


def test_what_computes_something_else_or_shares_its_weight_stays():
    model = Net(factor=2.0)
    assert replace_transposed(model) == ("second",)
    shared = Net()
    shared.third = Conv1D(5, 5)
    shared.third.weight = shared.second.weight
    assert replace_transposed(shared) == ("first",)

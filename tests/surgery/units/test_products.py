"""What parameters of the model's own code are multiplied with, and which bias is added in the same operation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.products import Products
from compressor.surgery.units.removal import prune

INPUTS, HIDDEN, CLASSES = 3, 7, 2


class Own(nn.Module):
    """A GRU behind which a parameter reads sigmoids of its units."""

    def __init__(self, how):
        super().__init__()
        self.rnn = nn.GRU(INPUTS, HIDDEN, batch_first=True)
        self.weight, self.shift = nn.Parameter(torch.randn(CLASSES, HIDDEN)), nn.Parameter(torch.randn(CLASSES))
        self.how = how

    def forward(self, x):
        y = torch.sigmoid(self.rnn(x)[0])
        if self.how == "in one operation":
            return functional.linear(y.flatten(0, 1), self.weight, self.shift)
        return y.flatten(0, 1) @ self.weight.t() + self.shift


def examples():
    return [(torch.randn(2, 3, INPUTS).double(),), (torch.randn(4, 5, INPUTS).double(),)]


def test_inputs_and_bias_of_a_product_are_seen():
    model, (x,) = Own("in one operation").double().eval(), examples()[0]
    with torch.no_grad(), Products(model, ["weight"]) as seen:
        model(x)
    [rows] = seen.inputs["weight"]
    torch.testing.assert_close(rows, torch.sigmoid(model.rnn(x)[0]).flatten(0, 1))
    assert seen.bias_of("weight") == "shift"


def test_a_bias_of_the_models_own_code_takes_up_what_a_silent_unit_gives():
    model = Own("in one operation").double().eval()
    smaller = prune(model, {}, examples(), names=["rnn"], amount=Amount(count=3)).model
    assert smaller.weight.shape == (CLASSES, HIDDEN - 3)
    assert not torch.equal(smaller.shift, model.shift)


def test_a_product_without_a_bias_in_it_is_refused_with_what_it_reads():
    model = Own("apart").double().eval()
    with pytest.raises(SurgeryError, match=r"`weight` reads 0.5 of units that are 0, and its layer has no bias"):
        prune(model, {}, examples(), names=["rnn"], amount=Amount(count=3))

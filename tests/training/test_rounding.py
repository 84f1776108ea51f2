from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.training.rounding import Rounding, rounded
from exporters.quantization.rounding import rows_to_nearest, to_8_bits


@pytest.mark.parametrize("shape", [(7, 5), (3, 32), (5, 33), (11, 97)])
def test_training_rounds_as_the_exporter_does(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))
    weight[1] = 0
    exported = torch.from_numpy(to_8_bits(weight.numpy(), (0,)).weight)
    torch.testing.assert_close(rounded(weight, "int8"), exported, atol=0, rtol=0)
    exported = torch.from_numpy(rows_to_nearest(weight.numpy(), 4, 32).weight.astype(np.float32))
    torch.testing.assert_close(rounded(weight, "int4"), exported, atol=0, rtol=0)


def test_the_gradient_is_that_at_the_rounded_weights_and_the_exact_ones_come_back():
    torch.manual_seed(0)
    model, x = nn.LSTM(5, 7), torch.randn(11, 3, 5)
    exact = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with Rounding(model, "int8").held():
        model(x)[0].square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert all(torch.equal(parameter, exact[name]) for name, parameter in model.named_parameters())
    model.zero_grad()
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(model, name).copy_(rounded(exact[name], "int8"))
    model(x)[0].square().sum().backward()
    assert all(torch.equal(parameter.grad, found[name]) for name, parameter in model.named_parameters())


def test_rounding_again_changes_nothing():
    model = nn.Sequential(nn.Embedding(13, 40), nn.Linear(40, 5))
    rounding = Rounding(model, "int4")
    rounding.keep()
    once = [parameter.detach().clone() for parameter in model.parameters()]
    rounding.keep()
    for ours, theirs in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-3)


def test_a_model_without_matrices_is_refused():
    with pytest.raises(MethodError, match="no matrix"):
        Rounding(nn.Sequential(nn.Conv1d(2, 2, 3)), "int8")

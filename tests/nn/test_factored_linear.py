"""A linear layer of two factors computes their product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.factorisation import Spectrum
from tests.nn.tensors import normal
from tests.tolerances import SAME_FLOAT64


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

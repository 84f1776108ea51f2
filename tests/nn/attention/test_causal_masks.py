"""A number in a mask hides a key from -1e4 downwards, and a mask is causal if it hides exactly what comes later."""

from __future__ import annotations

import pytest
import torch

from compressor.nn.attention.causal_masks import hidden, is_causal_mask


def test_a_number_hides_from_minus_ten_thousand_downwards():
    numbers = torch.tensor([-torch.inf, -1e9, -1e4, -9999.0, -1e3, -1e2, 0.0])
    assert hidden(numbers).tolist() == [True, True, True, False, False, False, False]
    assert hidden(torch.tensor([True, False])).tolist() == [True, False]


@pytest.mark.parametrize("low", [-torch.inf, -1e9, -1e4])
def test_a_very_low_number_above_the_diagonal_is_causal(low):
    assert is_causal_mask(torch.full((3, 3), low).triu(1))


@pytest.mark.parametrize("low", [-9000.0, -1e3, -1e2])
def test_a_number_that_a_large_score_outweighs_is_not_causal(low):
    assert not is_causal_mask(torch.full((3, 3), low).triu(1))

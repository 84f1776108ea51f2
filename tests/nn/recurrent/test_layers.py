"""Which modules are recurrent layers of PyTorch's, and which have a `forward` of their own."""

from __future__ import annotations

import pytest
from torch import nn

from compressor.nn.recurrent.layers import has_own_forward, is_step_module


class Renamed(nn.GRU):
    """Nothing of its own."""


class Halved(nn.LSTM):
    """Works around PyTorch's."""

    def forward(self, x, hx=None):
        output, states = super().forward(x, hx)
        return output / 2, states


class Below(Halved):
    """Inherits it."""


@pytest.mark.parametrize(
    ("module", "own"),
    [
        (nn.GRU(2, 3), False),
        (Renamed(2, 3), False),
        (Halved(2, 3), True),
        (Below(2, 3), True),
        (nn.Linear(2, 3), False),
        (nn.Sequential(nn.RNN(2, 3)), False),
    ],
)
def test_a_forward_of_its_own_is_one_around_pytorchs(module, own):
    assert has_own_forward(module) is own


def test_modules_for_one_step_are_cells():
    assert [is_step_module(one) for one in (nn.GRUCell(2, 3), nn.LSTMCell(2, 3), nn.GRU(2, 3), None)] == [
        True,
        True,
        False,
        False,
    ]

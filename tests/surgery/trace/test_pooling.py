"""Pooling over steps or pixels keeps units apart; over units it mixes them, and they stay."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

HIDDEN = 13
STEPS = {
    "max_pool1d": lambda y: nn.functional.max_pool1d(y, 2),
    "avg_pool1d": lambda y: nn.functional.avg_pool1d(y, 3, padding=1),
    "adaptive_avg_pool1d": lambda y: nn.functional.adaptive_avg_pool1d(y, 2),
    "adaptive_max_pool1d": lambda y: nn.functional.adaptive_max_pool1d(y, 3),
}
PLANES = {
    "max_pool2d": lambda y: nn.functional.max_pool2d(y, (3, 1), padding=(1, 0)),
    "avg_pool2d": lambda y: nn.functional.avg_pool2d(y, (1, 3)),
    "adaptive_avg_pool2d": lambda y: nn.functional.adaptive_avg_pool2d(y, (5, None)),
    "adaptive_max_pool2d": lambda y: nn.functional.adaptive_max_pool2d(y, (None, 4)),
}


class Pooled(nn.Module):
    """A GRU whose outputs, as (batch, units, steps) or the other way round, are pooled over the last axis."""

    def __init__(self, pool, *, over_units):
        super().__init__()
        self.rnn, self.head = nn.GRU(5, HIDDEN, batch_first=True), nn.LazyLinear(3)
        self.pool, self.over_units = pool, over_units

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.head(self.pool(y) if self.over_units else self.pool(y.transpose(1, 2)).transpose(1, 2))


class Picture(nn.Module):
    """Channels of a convolution, pooled and flattened into a Linear."""

    def __init__(self, pool):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, HIDDEN, 3), nn.LazyLinear(3)
        self.pool = pool

    def forward(self, x):
        return self.head(self.pool(self.conv(x.unsqueeze(1))).flatten(1))


def _ready(model, x):
    model(x)  # sets the size of the head
    return model.double().eval()


@pytest.mark.parametrize("pool", STEPS)
def test_units_are_followed_through_pooling_over_steps(pool):
    x = torch.randn(2, 7, 5)
    model = _ready(Pooled(STEPS[pool], over_units=False), x)
    result = prune(model, {}, [(x.double(),)], names=["rnn"], amount=Amount(ratio=0.5)).model
    assert (result.rnn.hidden_size, result.head.in_features) == (7, 7)


@pytest.mark.parametrize("pool", PLANES)
def test_channels_are_followed_through_pooling_over_pixels(pool):
    x = torch.randn(2, 11, 8)
    model = _ready(Picture(PLANES[pool]), x)
    result = prune(model, {}, [(x.double(),)], names=["conv"], amount=Amount(ratio=0.5)).model
    assert result.conv.out_channels == 7
    assert result.head.in_features * HIDDEN == model.head.in_features * 7


@pytest.mark.parametrize("pool", STEPS)
def test_units_that_are_pooled_together_stay(pool):
    x = torch.randn(2, 7, 5)
    model = _ready(Pooled(STEPS[pool], over_units=True), x)
    with pytest.raises(SurgeryError, match=r"the pooling at test_pooling\.py:\d+ slides over it"):
        prune(model, {}, [(x.double(),)], names=["rnn"], amount=Amount(ratio=0.5))

"""Views as complex numbers keep their features, with the line; what is written in place over features is followed."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

EXAMPLES = [(torch.randn(2, 3, 5).double(),), (torch.randn(3, 7, 5).double(),)]


class Rotated(nn.Module):
    """Pairs of features turn with the position, as complex numbers."""

    def __init__(self):
        super().__init__()
        self.rnn, self.mid, self.head = nn.GRU(5, 12, batch_first=True), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        y = torch.relu(self.mid(self.rnn(x)[0]))
        pairs = torch.view_as_complex(y.view(*y.shape[:2], -1, 2).contiguous())
        steps = torch.arange(x.size(1), dtype=x.dtype)[:, None]
        turned = pairs * torch.polar(torch.ones_like(steps), 0.1 * steps)
        return self.head(torch.view_as_real(turned).flatten(-2))


class Written(Rotated):
    """The first step is 0, the last one is filled with 0."""

    def forward(self, x):
        y = self.rnn(x)[0].clone()
        y[:, 0] = 0
        y[:, -1].zero_()
        y[:, 1].fill_(0.0)
        return self.head(torch.tanh(self.mid(y)))


class Ones(Written):
    """The first step is 1, which a silent unit is not."""

    def forward(self, x):
        y = self.rnn(x)[0].clone()
        y[:, 0] = 1
        return self.head(y)


def test_complex_numbers_keep_their_features_and_the_layer_below_goes_on():
    model = Rotated().double().eval()
    with pytest.raises(SurgeryError, match=r"`aten::view_as_complex` at test_reinterpreted\.py"):
        prune(model, {}, EXAMPLES, names=["mid"], amount=Amount(ratio=0.5))
    done = prune(model, {}, EXAMPLES, names=["rnn"], amount=Amount(ratio=0.5))
    assert done.model.rnn.hidden_size == 6


def test_zeros_that_are_written_over_steps_are_followed():
    done = prune(Written().double().eval(), {}, EXAMPLES, names=["rnn"], amount=Amount(ratio=0.5))
    assert done.model.rnn.hidden_size == 6


def test_ones_that_are_written_over_steps_are_no_silent_units():
    with pytest.raises(SurgeryError, match="differs"):
        prune(Ones().double().eval(), {}, EXAMPLES, names=["rnn"], amount=Amount(ratio=0.5))

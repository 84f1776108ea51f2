"""Questions about all elements, as in an assertion, stand in nobody's way; what computes with their answers does."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

EXAMPLES = [(torch.randn(2, 3, 5).double(),), (torch.randn(3, 7, 5).double(),)]


class Checked(nn.Module):
    """A decoder that checks what it knows of its layer."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 11, batch_first=True), nn.Linear(11, 3)

    def forward(self, x):
        y, last = self.rnn(x)
        assert (y[:, -1] == last[0]).all()
        assert torch.equal(y[:, -1], last[0])
        assert not torch.isnan(y).any()
        return self.head(y)


class Gated(Checked):
    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y) * (y > 0.2).any(-1, keepdim=True)


def test_an_assertion_is_not_in_the_way():
    done = prune(Checked().double().eval(), {}, EXAMPLES, names=["rnn"], amount=Amount(count=4))
    assert done.model.rnn.hidden_size == 7


def test_an_answer_in_a_product_is():
    with pytest.raises(SurgeryError, match="computes with an answer about all of them"):
        prune(Gated().double().eval(), {}, EXAMPLES, names=["rnn"], amount=Amount(count=4))

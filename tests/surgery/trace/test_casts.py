"""Models that compute in another type than their weights have: autocast, and casts in their own code."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from tests.surgery.trace.chains import INPUTS, WIDTH


class Cast(nn.Module):
    """A GRU, a layer whose weight is cast, and a head."""

    def __init__(self, how):
        super().__init__()
        self.rnn, self.mid = nn.GRU(INPUTS, WIDTH, batch_first=True), nn.Linear(WIDTH, WIDTH)
        self.head, self.how = nn.Linear(WIDTH, 3), how

    def forward(self, x):
        y = self.rnn(x)[0]
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = torch.relu(self.mid(y))
        elif self.how == "halves":
            y = torch.relu(F.linear(y.half(), self.mid.weight.half(), self.mid.bias.half()))
        else:
            y = torch.relu(y.double() @ self.mid.weight.double().t() + self.mid.bias.double())
        return self.head(y.float())


@pytest.mark.parametrize("how", ["autocast", "halves", "doubles"])
def test_units_on_both_sides_of_a_weight_that_is_cast(how):
    torch.manual_seed(0)
    model = Cast(how).eval()
    examples = [(torch.randn(2, 6, INPUTS),), (torch.randn(3, 4, INPUTS),)]
    found = prune(model, {}, examples, names=["rnn", "mid"], amount=Amount(ratio=0.5)).model
    assert (found.rnn.hidden_size, found.mid.in_features, found.mid.out_features, found.head.in_features) == (
        6,
        6,
        6,
        6,
    )


def test_a_row_that_is_masked_as_a_whole_is_no_difference():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.score, self.value, self.head = nn.Linear(INPUTS, 4), nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x, keep):
            q, v = self.score(x).unsqueeze(1), self.value(x).unsqueeze(1)
            return self.head(F.scaled_dot_product_attention(q, q, v, attn_mask=keep[:, None, None, :]).squeeze(1))

    keep = torch.ones(2, 6, dtype=torch.bool)
    keep[0], keep[1, 3:] = False, False
    model = Masked().double().eval()
    found = prune(model, {}, [(torch.randn(2, 6, INPUTS).double(), keep)], names=["value"], amount=Amount(ratio=0.5))
    assert found.model.head.in_features == 6

"""Tables of several axes beside features: a state space, biases by head, rotations; and numbers of heads and blocks."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from tests.surgery.rebuilding import rebuilt_from
from tests.tolerances import SAME_FLOAT64

INPUT, WIDTH, PLACES = 5, 14, 3
EXAMPLES = [(torch.randn(2, 4, INPUT).double(),), (torch.randn(3, 7, INPUT).double(),)]


class StateSpace(nn.Module):
    """A selective scan: (channel, place) decays, and products of channels with places."""

    def __init__(self):
        super().__init__()
        self.enter, self.step = nn.Linear(INPUT, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.places, self.head = nn.Linear(WIDTH, 2 * PLACES), nn.Linear(WIDTH, 2)
        self.log_decay = nn.Parameter(torch.rand(WIDTH, PLACES))

    def forward(self, x):
        x = self.enter(x)
        step, (read, write) = functional.softplus(self.step(x)), self.places(x).chunk(2, -1)
        kept = torch.exp(torch.einsum("btd,dn->btdn", step, -torch.exp(self.log_decay.float().to(x.dtype))))
        new = step[..., None] * write[:, :, None] * x[..., None]
        state, outputs = x.new_zeros(len(x), self.enter.out_features, PLACES), []
        for t in range(x.size(1)):
            state = kept[:, t] * state + new[:, t]
            outputs.append((state @ read[:, t, :, None]).squeeze(-1))
        return self.head(torch.stack(outputs, 1))


class Heads(nn.Module):
    """Rotated queries and keys, a bias for each feature of each head, and the number of heads as a number."""

    def __init__(self):
        super().__init__()
        self.heads, self.size = 4, 6
        self.q, self.k, self.v = (nn.Linear(INPUT, 24) for _ in range(3))
        self.out = nn.Linear(24, 3)
        self.bias = nn.Parameter(torch.randn(4, 6))
        angles = torch.outer(torch.arange(16).double(), torch.rand(3).double())
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def turned(self, x):
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        cos, sin = (table[: x.size(1)].view(1, -1, 1, 3) for table in (self.cos, self.sin))
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(3)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (layer(x).view(b, t, self.heads, self.size) for layer in (self.q, self.k, self.v))
        q, k = self.turned(q + self.bias), self.turned(k)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(self.size)
        y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
        return self.out(y.reshape(b, t, -1))


class Blocks(nn.Module):
    """A cell whose gates are blocks of a number that is no size of any axis."""

    def __init__(self):
        super().__init__()
        self.hidden = 7
        self.conv, self.head = nn.Conv1d(1 + 7, 4 * 7, 3, padding=1), nn.Linear(7, 2)

    def forward(self, x):
        h = c = x.new_zeros(len(x), self.hidden, x.size(2))
        outputs = []
        for t in range(x.size(1)):
            i, f, o, g = torch.split(self.conv(torch.cat([x[:, t, None], h], 1)), self.hidden, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(self.head(h.mean(-1)))
        return torch.stack(outputs, 1)


@pytest.mark.parametrize(
    ("kind", "name", "ratio", "sizes"),
    [
        (StateSpace, "enter", 0.5, {"log_decay": (7, PLACES), "places": (2 * PLACES, 7)}),
        (Heads, "q", 0.5, {"out": (3, 12), "bias": (2, 6), "heads": 2, "size": 6}),
        (Blocks, "", 0.5, {"hidden": 4, "head": (2, 4)}),
    ],
)
def test_units_go_and_the_record_rebuilds_the_model(kind, name, ratio, sizes):
    torch.manual_seed(0)
    model = kind().double().eval()
    done = prune(model, {}, EXAMPLES, names=[name], amount=Amount(ratio=ratio))
    for key, size in sizes.items():
        found = getattr(done.model, key)
        assert (tuple(getattr(found, "weight", found).shape) if isinstance(size, tuple) else found) == size
    fresh = rebuilt_from(done, copy.deepcopy(model))
    x = torch.randn(5, 6, INPUT).double()
    torch.testing.assert_close(fresh(x), done.model(x), **SAME_FLOAT64)


class Mixer(nn.Module):
    """Layers over the positions, in front of which the features lie along another axis."""

    def __init__(self):
        super().__init__()
        self.enter, self.up, self.down = nn.Linear(INPUT, WIDTH), nn.Linear(4, 11), nn.Linear(11, 4)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = self.enter(x)
        return self.head(x + self.down(torch.relu(self.up(x.mT))).mT)


def test_units_of_a_layer_over_the_positions_go():
    examples = [(torch.randn(batch, 4, INPUT).double(),) for batch in (2, 3)]
    done = prune(Mixer().double().eval(), {}, examples, names=["up"], amount=Amount(count=5))
    assert (done.model.up.out_features, done.model.enter.out_features) == (6, WIDTH)

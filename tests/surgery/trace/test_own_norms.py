"""Normalisations that a model writes out itself: followed as a module, refused with the line in the middle of code."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.own_cells import find_own_cells
from compressor.surgery.units.removal import prune
from tests.nn.test_own_norm import WIDTH, ChannelsFirst, Functional, OnePlus, OutsideUnbiased, TransposedAround
from tests.surgery.own_cells import INPUT, Loop, OwnCell
from tests.surgery.rebuilding import rebuilt_from
from tests.tolerances import SAME_FLOAT64

EXAMPLES = [(torch.randn(2, WIDTH, INPUT).double(),), (torch.randn(3, 7, INPUT).double(),)]


class Residual(nn.Module):
    """Normalised in front of each layer, as in a Transformer."""

    def __init__(self, norm):
        super().__init__()
        self.enter, self.head = nn.Linear(INPUT, WIDTH), nn.Linear(WIDTH, 3)
        self.norms = nn.ModuleList([norm(), norm()])
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.first = norm in (ChannelsFirst, TransposedAround)

    def forward(self, x):
        x = self.enter(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + torch.relu(layer(norm(x.transpose(1, 2)).transpose(1, 2) if self.first else norm(x)))
        return self.head(x)


@pytest.mark.parametrize("norm", [OutsideUnbiased, Functional, ChannelsFirst, TransposedAround, OnePlus])
def test_all_layers_of_a_residual_stream_lose_the_same_features(norm):
    torch.manual_seed(0)
    model = Residual(norm).double().eval()
    done = prune(model, {}, EXAMPLES, names=["enter"], amount=Amount(count=4))
    assert done.model.head.in_features == WIDTH - 4
    assert all(layer.features == WIDTH - 4 for layer in done.model.norms)
    fresh = rebuilt_from(done, copy.deepcopy(model))
    torch.testing.assert_close(fresh(EXAMPLES[1][0]), done.model(EXAMPLES[1][0]), **SAME_FLOAT64)


class NormedCell(OwnCell):
    """A GRU-like cell whose gates are normalised by a module of the model's own."""

    def __init__(self):
        super().__init__(WIDTH)
        self.gates, self.new = nn.Linear(INPUT + WIDTH, WIDTH), nn.Linear(INPUT + WIDTH, WIDTH)
        self.norm = OutsideUnbiased()

    def forward(self, x, states):
        both = torch.cat([x, states[0]], -1)
        z = torch.sigmoid(self.norm(self.gates(both)))
        return (z * states[0] + (1 - z) * torch.tanh(self.new(both)),)


def test_a_cell_with_a_norm_of_its_own_loses_units():
    torch.manual_seed(0)
    model = Loop(NormedCell()).double().eval()
    names = list(find_own_cells(model, EXAMPLES[0]))
    assert names == ["cell"]
    done = prune(model, {}, EXAMPLES, names=names, amount=Amount(ratio=0.5))
    assert done.model.cell.norm.features == done.model.head.in_features == WIDTH - WIDTH // 2


class InCode(Residual):
    """The same function in the middle of `forward`."""

    def forward(self, x):
        x = self.enter(x)
        return self.head(functional.layer_norm(x, (WIDTH,), self.norms[0].gain))


class ByHand(Residual):
    def forward(self, x):
        x = self.enter(x)
        return self.head((x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt())


@pytest.mark.parametrize("kind", [InCode, ByHand])
def test_in_the_middle_of_code_it_is_refused_with_the_line_and_the_remedy(kind):
    model = kind(Functional).double().eval()
    with pytest.raises(SurgeryError, match=r"test_own_norms\.py:\d+ .*let an `nn\.LayerNorm`"):
        prune(model, {}, EXAMPLES, names=["enter"], amount=Amount(ratio=0.5))


class Upside(nn.LayerNorm):
    """A subclass that is no normalisation any more."""

    def forward(self, x):
        return super().forward(x).flip(-1)


def test_a_subclass_that_computes_something_else_keeps_its_size():
    model = Residual(lambda: Upside(WIDTH)).double().eval()
    with pytest.raises(SurgeryError, match="with a `forward` of its own"):
        prune(model, {}, EXAMPLES, names=["enter"], amount=Amount(ratio=0.5))


class FirstPosition(Residual):
    """A learned first position in front of the others is normalised with them."""

    def __init__(self):
        super().__init__(lambda: nn.LayerNorm(WIDTH))
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH))

    def forward(self, x):
        x = torch.cat([self.start.expand(len(x), -1, -1), self.enter(x)], 1)
        return self.head(self.norms[1](self.norms[0](x)[:, 0]))


def test_positions_of_several_origins_lose_the_same_features():
    model = FirstPosition().double().eval()
    done = prune(model, {}, EXAMPLES, names=["enter"], amount=Amount(count=4))
    assert done.model.start.size(-1) == done.model.head.in_features == WIDTH - 4


class InputBehind(Residual):
    """The input itself, twice and more, is normalised at further positions."""

    def forward(self, x):
        x = torch.cat([self.enter(x), torch.cat([x, x, x[..., :1]], -1)], 1)
        return self.head(self.norms[0](x))


def test_features_that_are_fixed_at_some_positions_stay():
    model = InputBehind(lambda: nn.LayerNorm(WIDTH)).double().eval()
    with pytest.raises(SurgeryError, match="takes its mean over it and others"):
        prune(model, {}, EXAMPLES, names=["enter"], amount=Amount(ratio=0.5))

"""A copy of a model whose functions hold layers computes with its own layers."""

import copy

import torch
from torch import nn

from compressor.methods.base import Context, State
from compressor.methods.magnitude import Magnitude
from compressor.progress import Silent
from compressor.task.closures import bind_closures
from compressor.task.guard import GuardedTask
from compressor.testing import RandomTask, normal

INPUT, WIDTH = 5, 11


class Block(nn.Module):
    """As in a GPT of few lines: the feed-forward part is a lambda over a ModuleDict."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(INPUT)
        self.parts = nn.ModuleDict({"up": nn.Linear(INPUT, WIDTH), "down": nn.Linear(WIDTH, INPUT)})
        parts = self.parts
        self.feed = lambda x: parts.down(torch.relu(parts.up(x)))

        def scaled(x, layers=(parts,), *, by=2.0):
            return x * by * len(layers) * self.scale

        self.scaled, self.scale = scaled, 2.0
        self.activation = torch.relu

    def forward(self, x):
        return self.scaled(x) + self.feed(self.norm(x))


def test_a_copy_has_functions_over_its_own_layers():
    model = Block()
    x = torch.randn(2, 3, INPUT)
    expected = model(x)
    bind_closures(model)
    other = copy.deepcopy(model)
    torch.testing.assert_close(other(x), expected)
    with torch.no_grad():
        other.parts.down.weight.zero_()
        other.scale = 3.0
    assert not torch.equal(other(x), expected)
    torch.testing.assert_close(model(x), expected)
    assert model.activation is torch.relu


def test_its_layers_lose_units():
    timed = {0: "batch", 1: "time"}
    task = GuardedTask(RandomTask({"x": timed}, {"y": timed}, normal(INPUT), Head()), __file__)
    model = task.model()
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    method = Magnitude(prune="units", count=4, targets=("block.parts.up",), compensate=False)
    assert method.apply(State(model), context).state.model.block.parts.up.out_features == WIDTH - 4


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.head = Block(), nn.Linear(INPUT, 3)

    def forward(self, x):
        return self.head(self.block(x))

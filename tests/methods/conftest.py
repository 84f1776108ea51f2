"""A small model and a task that it can learn: does the last step's first channel exceed its second?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.methods.base import Context, State
from compressor.progress import Silent
from compressor.task.contract import Task

CHANNELS, HIDDEN, CLASSES = 5, 7, 2
BATCHES, BATCH, LENGTH = 6, 13, 3


class Tagger(nn.Module):
    def __init__(self, hidden=HIDDEN, kind=nn.GRU, dropout=0.0):
        super().__init__()
        self.rnn = kind(CHANNELS, hidden, num_layers=2, batch_first=True, dropout=dropout)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class SignTask(Task):
    """Counts what methods ask of it."""

    length = LENGTH

    def __init__(self):
        self.batches_given = 0
        self.losses_taken = 0
        self.metrics = None
        """Scripted validation metrics; measured where it is None."""

    def model(self):
        return Tagger()

    def example(self, batch, length):
        return (torch.ones(batch, length, CHANNELS),)

    def batches(self, generator):
        for _ in range(BATCHES):
            x = torch.randn(BATCH, LENGTH, CHANNELS, generator=generator)
            self.batches_given += 1
            yield (x,), (x[:, -1, 0] > x[:, -1, 1]).long()

    def loss(self, outputs, target):
        self.losses_taken += 1
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward):
        if self.metrics is not None:
            return self.metrics.pop(0)
        x = torch.randn(101, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(1))
        return float((forward(x).argmax(-1) == (x[:, -1, 0] > x[:, -1, 1])).float().mean())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tagger().eval()


@pytest.fixture
def state(model):
    return State(model)


@pytest.fixture
def task():
    return SignTask()


@pytest.fixture
def context(model, task):
    return make_context(model, task)


def make_context(model, task, *, seed=0, device="cpu", quick=False):
    generator = torch.Generator().manual_seed(seed)
    return Context(task, model, torch.device(device), generator, Silent(), quick=quick)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)

"""A task whose data are drawn: which of two features is larger at the last position."""

from __future__ import annotations

import textwrap

_TASK = """\
import torch
from torch import nn
from compressor import Task


def data(seed, count):
    x = torch.randn(count, 11, 5, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, -1, 0] > x[:, -1, 1]).long()


NET


class Signs(Task):
    inputs = {"x": {0: "batch", 1: "time"}}
    outputs = {"logits": {0: "batch"}}
    length, max_length = 11, 29

    def model(self):
        torch.manual_seed(1)
        return Net()

    def example(self, batch, length):
        return (torch.randn(batch, length, 5, generator=torch.Generator().manual_seed(7)),)

    def batches(self, generator):
        x, y = data(1, 96)
        for chosen in torch.randperm(96, generator=generator).split(32):
            yield (x[chosen],), y[chosen]

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward):
        x, y = data(2, 101)
        return (forward(x).argmax(1) == y).float()
"""


def signs(net):
    """The text of a task of the class `Net`, which maps (B, T, 5) to (B, 2)."""
    return _TASK.replace("NET", textwrap.dedent(net).strip())

from __future__ import annotations

import pytest
import torch

from compressor.task.contract import Task


class ShapedTask(Task):
    """A task of which only the shapes matter: the exporter never trains or scores."""

    length = 11
    min_length = 1
    max_length = 29

    def __init__(self, inputs, outputs, example, **attributes):
        self.inputs, self.outputs, self._example = inputs, outputs, example
        for name, value in attributes.items():
            setattr(self, name, value)

    def model(self):
        raise NotImplementedError

    def example(self, batch, length):
        return self._example(batch, length)

    def batches(self, generator):
        raise NotImplementedError

    def loss(self, outputs, target):
        raise NotImplementedError

    def evaluate(self, forward):
        raise NotImplementedError


def features_task(outputs=None, **attributes):
    """Features (B, T, 5) in, one output (B, ...) out unless `outputs` says otherwise."""
    return ShapedTask(
        {"features": {0: "batch", 1: "time"}},
        outputs or {"scores": {0: "batch"}},
        lambda batch, length: (torch.randn(batch, length, 5),),
        **attributes,
    )


def lengths_for(batch, longest):
    """Lengths (B,) in no order, in 1..longest, often all of them below it."""
    return torch.randint(1, longest + 1, (batch,))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

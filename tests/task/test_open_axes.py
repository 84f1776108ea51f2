from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.task import open_axes
from compressor.task.of_example import ExampleTask
from compressor.task.signature import Call

BATCH, TIME = "batch", "time"


class States(nn.Module):
    """A layer that keeps PyTorch's own order of axes and takes a state, or none."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 6)

    def forward(self, x, state=None):
        return self.rnn(x, state)


class Attention(nn.Module):
    """Attention without positions sees a set: whatever order its inputs have, it gives the same."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, mask=None):
        return self.inner(x, x, x, key_padding_mask=mask, need_weights=False)[0]


class Positions(nn.Module):
    """As long as its table, and not shorter than its kernel."""

    def __init__(self):
        super().__init__()
        self.table, self.convolution = nn.Parameter(torch.randn(1, 3, 40)), nn.Conv1d(3, 2, 4)

    def forward(self, x):
        return self.convolution(x + self.table[..., : x.shape[2]])


def axes(model, *args):
    return ExampleTask(model.eval(), Call(*args)).axes


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_time_before_batch_is_told_by_what_the_model_computes(batch):
    x, state = torch.randn(7, batch, 5), torch.randn(1, batch, 6)
    assert axes(States(), x) == [{0: TIME, 1: BATCH}]
    assert axes(States(), x, state) == [{0: TIME, 1: BATCH}, {1: BATCH}]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_set_is_no_batch(batch):
    x = torch.randn(batch, 7, 4)
    assert axes(Attention(), x) == [{0: BATCH, 1: TIME}]
    assert axes(Attention(), x, torch.zeros(batch, 7, dtype=torch.bool)) == [{0: BATCH, 1: TIME}] * 2


def test_an_axis_that_the_model_fixes_stays_fixed():
    assert axes(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(2, 3, 4)) == [{0: BATCH}]


def test_the_range_of_lengths_ends_where_the_model_does():
    task = ExampleTask(Positions().eval(), torch.randn(2, 3, 9))
    assert task.axes == [{0: BATCH, 2: TIME}]
    assert (task.min_length, task.length, task.max_length) == (4, 9, 40)
    assert open_axes.lengths(3, lambda length: True) == (1, 512)
    assert open_axes.lengths(3, lambda length: length == 3) == (3, 3)


def test_lengths_of_sequences_follow_the_number_of_positions():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(9, 3), nn.GRU(3, 4, batch_first=True)

        def forward(self, tokens, lengths):
            x = self.embedding(tokens)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.rnn(packed)[1][0]

    task = ExampleTask(Packed().eval(), (torch.randint(9, (3, 6)), torch.tensor([2, 6, 4])))
    assert task.axes == [{0: BATCH, 1: TIME}, {0: BATCH}]
    tokens, lengths = task.example(5, 3).args
    assert tokens.shape == (5, 3)
    assert lengths[0] == 3
    assert bool((lengths <= 3).all())

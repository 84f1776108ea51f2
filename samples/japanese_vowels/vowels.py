"""The Japanese vowels and two recurrent networks that tell who spoke; in a project of yours, the code you already have.

Nine men said /ae/: 270 sequences to learn from and 370 to test with, 12 LPC cepstrum channels, 7 to 29 steps (Kudo,
Toyama and Shimbo, 1999). aeon ships them inside its package, so nothing is downloaded. Its file is read here: to import
aeon brings in half of the scientific Python world and takes longer than all the training does.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from compressor.task.contract import Forward

CHANNELS = 12
SPEAKERS = 9
UNITS = 128
LONGEST = 29
"""Steps of the longest sequence."""
NOISE = 0.3
"""Deviation of the noise on scaled features in training; it keeps 216 sequences from being learnt by heart."""

Batch = tuple[tuple[Tensor, Tensor], Tensor]
"""(features (B, T, 12) padded with zeros at the end, lengths (B,)), speakers (B,) in 0..8."""


@cache
def _shipped(split: str) -> Batch:
    package = find_spec("aeon")  # found, not imported
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the recordings are in the package `aeon`: pip install aeon", name="aeon")
    folder = Path(package.submodule_search_locations[0], "datasets", "data", "JapaneseVowels")
    _, _, lines = (folder / f"JapaneseVowels_{split.upper()}.ts").read_text(encoding="utf-8").partition("@data\n")
    recordings = [line.split(":") for line in lines.split()]
    sequences = [torch.tensor([[float(v) for v in part.split(",")] for part in own[:-1]]).T for own in recordings]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return (pad_sequence(sequences, batch_first=True), lengths), torch.tensor([int(own[-1]) - 1 for own in recordings])


def _part_of_train(*, held_out: bool) -> Batch:
    """Every fifth sequence of the training split (six a speaker), or the others."""
    (features, lengths), speakers = _shipped("train")
    chosen = (torch.arange(len(speakers)) % 5 == 4) == held_out
    return (features[chosen], lengths[chosen]), speakers[chosen]


def train_data() -> Batch:
    """216 sequences to train with."""
    return _part_of_train(held_out=False)


def validation_data() -> Batch:
    """54 sequences of the training split that no training sees."""
    return _part_of_train(held_out=True)


def test_data() -> Batch:
    """The 370 sequences of the test split."""
    return _shipped("test")


def padded(data: Batch) -> Batch:
    """The same sequences with zeros behind them, (B, 29, 12)."""
    (features, lengths), speakers = data
    return (nn.functional.pad(features, (0, 0, 0, LONGEST - features.shape[1])), lengths), speakers


class Net(nn.Module):
    """A recurrent layer and a Linear layer on its last valid step.

    The channels' mean and deviation are buffers, so that an exported file takes raw features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("deviation", torch.ones(CHANNELS))
        self.recurrent = cell(CHANNELS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, SPEAKERS)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, 12) and lengths (B,), 1..T, to the speakers' logits (B, 9)."""
        scaled = (features - self.mean) / self.deviation
        if self.training:
            scaled = scaled + NOISE * torch.randn_like(scaled)
        states = self.recurrent(scaled)[0]  # (B, T, H)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        logits: Tensor = self.output(states[rows, lengths - 1])  # (B, 9)
        return logits


def correct(forward: Forward, data: Batch) -> Tensor:
    """1 where the speaker was recognised, else 0 (N,)."""
    inputs, speakers = data
    return (forward(*inputs).argmax(dim=1) == speakers).float()

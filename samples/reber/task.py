"""Is a string valid in the Reber grammar? Three recurrent layers of 50 units read it letter by letter.

The models and the data of arXiv 2407.20601, section 3: Embedding(128, 50), three layers of 50 tanh, ReLU, GRU or LSTM
units, and Linear(50, 2) on the last step. Give one of the four to the tool as `samples/reber/task.py:LSTM`.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from compressor import load_weights
from compressor.task.contract import Evaluation, Task

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reber.grammar import FAMILIES, Sample, split, unseen  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.task.contract import Forward

BATCH = 32
WIDTH = 50
LAYERS = 3
VALIDATION_COUNT = 2000


class Classifier(nn.Module):
    """Characters (ASCII codes, zero = padding) to the scores of `invalid` and `valid`."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, WIDTH)
        self.recurrent = recurrent
        self.output = nn.Linear(WIDTH, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Codes (B, T) to scores (B, 2): those of the last step, padded or not."""
        states = self.recurrent(self.embedding(tokens))[0]  # (B, T, H)
        scores: Tensor = self.output(states[:, -1])
        return scores


@cache
def data() -> tuple[list[Sample], list[Sample]]:
    """The training and the test strings; made once."""
    return split()


@cache
def validation_data() -> list[Sample]:
    """Strings that are neither in the training nor in the test data."""
    return unseen(VALIDATION_COUNT, *data())


def encode(samples: Sequence[Sample]) -> Tensor:
    """ASCII codes (B, T), zero-padded at the end to the longest string of the batch."""
    longest = max(len(sample.text) for sample in samples)
    return torch.tensor([[*sample.text.encode(), *[0] * (longest - len(sample.text))] for sample in samples])


def labels(samples: Sequence[Sample]) -> Tensor:
    """1 for valid, 0 for invalid (B,)."""
    return torch.tensor([int(sample.valid) for sample in samples])


def score(forward: Forward, samples: Sequence[Sample]) -> Evaluation:
    """Accuracy on the samples, in their order, 32 to a batch; `parts` has the accuracy of each family (0 = valid).

    The answer depends a little on which strings share a batch, since they set the padding: the order is fixed.
    """
    correct = torch.cat(
        [
            torch.as_tensor(forward(encode(batch))).argmax(dim=1) == labels(batch)
            for batch in (samples[start : start + BATCH] for start in range(0, len(samples), BATCH))
        ]
    ).double()
    families = torch.tensor([sample.family for sample in samples])
    parts = {
        f"family {number}": float(correct[families == number].mean())
        for number in range(FAMILIES + 1)
        if (families == number).any()
    }
    return Evaluation(per_sample=correct, parts=parts)


class Reber(Task):
    """What the four tasks share."""

    inputs: Mapping[str, Mapping[int, str]] = {"tokens": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"scores": {0: "batch"}}
    length = 24
    min_length = 5
    max_length = 60
    cell: ClassVar[str]

    @property
    def checkpoint(self) -> Path:
        """Where `train.py` keeps the trained weights."""
        return HERE / f"{self.cell}.safetensors"

    @abstractmethod
    def recurrent(self) -> nn.RNNBase:
        """The three layers."""

    def untrained(self) -> Classifier:
        """The model with random weights, from PyTorch's global generator."""
        return Classifier(self.recurrent())

    def model(self) -> nn.Module:
        return load_weights(self.untrained(), self.checkpoint)

    def example(self, batch: int, length: int) -> tuple[Tensor, ...]:
        letters = torch.tensor([*b"BEPSTVX"])
        return (letters[torch.randint(len(letters), (batch, length), generator=torch.Generator().manual_seed(0))],)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        train, _ = data()
        order = torch.randperm(len(train), generator=generator).tolist()
        for start in range(0, len(order), BATCH):
            batch = [train[index] for index in order[start : start + BATCH]]
            yield (encode(batch),), labels(batch)

    def loss(self, outputs: Any, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward: Forward) -> Evaluation:
        return score(forward, data()[1])

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, validation_data())


class Tanh(Reber):
    """Plain recurrent layers with tanh."""

    cell = "tanh"

    def recurrent(self) -> nn.RNNBase:
        return nn.RNN(WIDTH, WIDTH, LAYERS, nonlinearity="tanh", batch_first=True)


class ReLU(Reber):
    """Plain recurrent layers with ReLU."""

    cell = "relu"

    def recurrent(self) -> nn.RNNBase:
        return nn.RNN(WIDTH, WIDTH, LAYERS, nonlinearity="relu", batch_first=True)


class GRU(Reber):
    """Gated recurrent units."""

    cell = "gru"

    def recurrent(self) -> nn.RNNBase:
        return nn.GRU(WIDTH, WIDTH, LAYERS, batch_first=True)


class LSTM(Reber):
    """Long short-term memory."""

    cell = "lstm"

    def recurrent(self) -> nn.RNNBase:
        return nn.LSTM(WIDTH, WIDTH, LAYERS, batch_first=True)


TASKS: dict[str, type[Reber]] = {task.cell: task for task in (Tanh, ReLU, GRU, LSTM)}

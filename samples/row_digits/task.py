"""What is in the picture? Clothes (the default) or, by `--task samples/row_digits/task.py:Mnist`, digits.

Run `fetch.py` first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pictures import ROWS, Parts, RowReader, correct, digits, fashion, mnist, steps
from torch import Tensor, nn

from compressor import Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

HERE = Path(__file__).parent
BATCH = 128


class Fashion(Task):
    """Accuracy on the 10,000 test pictures of Fashion-MNIST.

    A picture has 28 rows, but the network takes any number, so the `time` axis is dynamic: an exported file that has
    frozen it is found out with shorter and taller pictures.
    """

    inputs: Mapping[str, Mapping[int, str]] = {"rows": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length, min_length, max_length = ROWS, 1, 2 * ROWS
    weights = "fashion.safetensors"

    def pictures(self) -> Parts:
        """The task's pictures in their parts."""
        return fashion()

    def model(self) -> nn.Module:
        return load_weights(RowReader(), HERE / self.weights)

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        return (torch.rand(batch, length, ROWS, generator=torch.Generator().manual_seed(0)),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        learnt = self.pictures().learnt
        for chosen in torch.randperm(len(learnt), generator=generator).split(BATCH):
            yield (steps(learnt.pixels[chosen]),), learnt.classes[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, self.pictures().scored)

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, self.pictures().validated)


class Mnist(Fashion):
    """Accuracy on MNIST's 10,000 test digits."""

    weights = "mnist.safetensors"

    def pictures(self) -> Parts:
        return mnist()


class Digits(Fashion):
    """Accuracy on 1,000 of MNIST's digits, 3,500 others learnt: a task of minutes, not of hours."""

    weights = "digits.safetensors"

    def pictures(self) -> Parts:
        return digits()

"""Where to does the digit in the clip move?

Run `fetch.py` first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from clips import FRAMES, SIDE, FrameReader, clips, correct, parts
from torch import Tensor, nn

from compressor import Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

HERE = Path(__file__).parent
BATCH = 128


class MovingDigits(Task):
    """Accuracy on 1,000 clips of eight frames, of digits that were never learnt: eight directions."""

    inputs: Mapping[str, Mapping[int, str]] = {"frames": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch", 1: "time"}}
    length, min_length, max_length = FRAMES, 1, 4 * FRAMES

    def model(self) -> nn.Module:
        return load_weights(FrameReader(), HERE / "reader.safetensors")

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        return (torch.rand(batch, length, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        learnt = parts().learnt
        for chosen in torch.randperm(len(learnt), generator=generator).split(BATCH):
            frames, classes = clips(learnt[chosen], generator)
            yield (frames,), classes

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, 1), target.repeat_interleave(outputs.shape[1]))

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, parts().scored)

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, parts().validated)

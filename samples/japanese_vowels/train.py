"""Trains the three checkpoints beside it; some minutes on one core."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from task import Gru, Lstm
from torch import nn
from turns import Tagger, Turns
from vowels import Net, train_data

from compressor.task.contract import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from compressor import Task

EPOCHS = 40
PEAK_LEARNING_RATE = 3e-3
NETS = (("gru", Gru(), partial(Net, nn.GRU)), ("lstm", Lstm(), partial(Net, nn.LSTM)), ("tagger", Turns(), Tagger))
"""Name of the checkpoint, its task, and what makes its network."""


def train(task: Task, make: Callable[[], Net | Tagger], seed: int) -> nn.Module:
    """A trained network; neither the validation nor the test sequences are looked at."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = make()
    (features, lengths), _ = train_data()
    valid = features[torch.arange(features.shape[1]) < lengths[:, None]]  # (steps, 12), without the padding
    net.mean.copy_(valid.mean(dim=0))
    net.deviation.copy_(valid.std(dim=0))
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LEARNING_RATE, weight_decay=0.01)
    steps = EPOCHS * sum(1 for _ in task.batches(torch.Generator()))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for inputs, speakers in task.batches(generator):
            optimizer.zero_grad()
            task.loss(net(*inputs), speakers).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return net.eval()


def mean(found: Tensor | Evaluation) -> float:
    """The metric."""
    scores = found.per_sample if isinstance(found, Evaluation) else found
    return float(scores.mean())


def main() -> None:
    """Train them all and write them."""
    parser = argparse.ArgumentParser(description="train the checkpoints of this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of the sums, and so the checkpoint, does not depend on the number of cores
    for name, task, make in NETS:
        net = train(task, make, options.seed)
        with torch.no_grad():
            held_out, test = mean(task.validate(net)), mean(task.evaluate(net))
        path = options.out / f"{name}.safetensors"
        save_file(net.state_dict(), path)
        print(f"{path.name}: {path.stat().st_size} bytes, accuracy {held_out:.4f} validation, {test:.4f} test")


if __name__ == "__main__":
    main()

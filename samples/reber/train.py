"""Trains the base models of the Reber sample: `python samples/reber/train.py lstm --epochs 50`.

Settings of arXiv 2407.20601: Adam with learning rate 1e-3, batches of 32, gradient norm clipped to 5. The weights
after each epoch replace those of the epoch before, so that a run that is stopped leaves the last whole epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from reber.task import TASKS, Reber  # noqa: E402

from compressor.files import write_whole  # noqa: E402

LEARNING_RATE = 1e-3
CLIP_NORM = 5.0


def train_epoch(model: nn.Module, task: Reber, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> float:
    """One pass over the training strings; the mean loss of a batch."""
    model.train()
    losses = []
    for inputs, target in task.batches(generator):
        loss = task.loss(model(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def test_accuracy(model: nn.Module, task: Reber) -> tuple[float, dict[str, float]]:
    """Accuracy on the test strings, 0..1, and by family."""
    model.eval()
    with torch.no_grad():
        evaluation = task.evaluate(model)
    assert evaluation.per_sample is not None
    return float(evaluation.per_sample.mean()), dict(evaluation.parts)


def main() -> None:
    """Train one cell and say how each epoch went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", choices=TASKS)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    task = TASKS[options.cell]()
    model = task.untrained()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(options.seed)
    for epoch in range(1, options.epochs + 1):
        start = time.monotonic()
        loss = train_epoch(model, task, optimizer, generator)
        accuracy, families = test_accuracy(model, task)
        notes = {"epochs": str(epoch), "seed": str(options.seed)}
        write_whole(task.checkpoint, save(model.state_dict(), metadata=notes))
        row = {"epoch": epoch, "loss": round(loss, 5), "accuracy": accuracy, "seconds": round(time.monotonic() - start)}
        print(json.dumps(row | {name: round(value, 4) for name, value in families.items()}), flush=True)


if __name__ == "__main__":
    main()

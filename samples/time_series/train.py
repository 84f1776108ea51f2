"""Trains the checkpoints beside it, on one thread; seconds to half a minute of a core each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from task import TASKS, Series
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from epochs import options_of

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHT_DECAY = 0.01


def train(task: Series, seed: int, change: Callable[[nn.Module], nn.Module] = lambda network: network) -> nn.Module:
    """A trained network; neither the validation nor the test series are looked at.

    Args:
        task: Gives network, batches, loss, number of epochs and learning rate.
        seed: Of the random weights, the order of the batches and what is dropped.
        change: Makes another network of the one with random weights, before the training.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = change(task.network())
    optimizer = torch.optim.AdamW(net.parameters(), task.learning_rate, weight_decay=WEIGHT_DECAY)
    # The offset of the windows may cost an epoch its last batch: the schedule then ends a step early.
    steps = task.epochs * sum(1 for _ in task.batches(torch.Generator().manual_seed(seed)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / steps, 1.0)))
    for _ in range(task.epochs):
        net.train()
        for inputs, target in task.batches(generator):
            optimizer.zero_grad()
            task.loss(net(*inputs), target).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return net.eval()


def one_cycle(done: float, warm_up: float = 0.3) -> float:
    """Factor of the learning rate after the fraction `done` of all steps: a line up from 1/25, then a line to 0."""
    return 0.04 + 0.96 * done / warm_up if done < warm_up else (1.0 - done) / (1.0 - warm_up)


def main() -> None:
    """Train all, or those asked for, and write them."""
    parser = argparse.ArgumentParser(description="train the checkpoints of this folder")
    parser.add_argument("names", nargs="*", help="all of them where none is named")
    options = options_of(parser, Path(__file__).parent)
    for name in options.names or TASKS:
        task = TASKS[name]()
        net = train(task, options.seed)
        path = options.out / task.weights
        save_file(net.state_dict(), path)
        with torch.no_grad():
            held_out, test = (score_of(f, net) for f in (task.validate, task.evaluate))
        print(f"{path.name}: {path.stat().st_size} bytes, {task.metric} {held_out:.4f} validation, {test:.4f} test")


def score_of(function: Callable[..., object], net: nn.Module) -> float:
    """What a task's `evaluate` or `validate` says, as one number."""
    found = function(net)
    return float(found.mean()) if isinstance(found, torch.Tensor) else float(found.value)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

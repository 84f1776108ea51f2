"""The loop in which samples train their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from compressor import Task


def options_of(parser: ArgumentParser, out: Path | None = None) -> Namespace:
    """What the command line says, with `--seed` and `--out` too; PyTorch then takes one thread.

    Args:
        parser: Knows all other options.
        out: Default of `--out`; None: this folder's own place of the checkpoint.
    """
    parser.add_argument("--seed", type=int, default=0)
    usual = "this folder" if out is not None else "the checkpoint's place in this folder"
    parser.add_argument("--out", type=Path, default=out, help=f"by default, {usual}")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of the sums, and so the checkpoint, does not depend on the number of cores
    return options


def train_by_cosine(task: Task, net: nn.Module, rate: float, epochs: int, generator: torch.Generator) -> nn.Module:
    """`train_epochs` with Adam, whose learning rate falls from `rate` along a half cosine."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    batches = epochs * sum(1 for _ in task.batches(torch.Generator()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches)
    return train_epochs(task, net, optimizer, schedule, epochs=epochs, generator=generator)


def train_epochs(
    task: Task,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    epochs: int,
    generator: torch.Generator,
    clip: float | None = None,
) -> nn.Module:
    """The network after so many epochs of the task's `batches`, in evaluation mode; the mean loss of each is printed.

    Args:
        task: Gives batches and loss.
        net: Trained in place.
        optimizer: Of its parameters.
        schedule: Of the learning rate, stepped after every batch.
        epochs: Their number.
        generator: Draws the order of the batches.
        clip: Largest norm of the gradient; None if it is not clipped.
    """
    for epoch in range(1, epochs + 1):
        losses = []
        for inputs, target in task.batches(generator):
            optimizer.zero_grad()
            loss = task.loss(net(*inputs), target)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch} of {epochs}: loss {sum(losses) / len(losses):.4f}", flush=True)
    return net.eval()

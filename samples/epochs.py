"""The loop in which samples train their checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

    from compressor import Task


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

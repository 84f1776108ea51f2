"""Throughput of `retrain` against a bare PyTorch loop over the same batches; the aim is at least 0.95.

Both sides run in this process, one after the other and in alternating order, on the same batches from the same
weights with the same optimizer settings: copy the model, make the optimizer, train, on ours with everything that
`retrain` does around it (guarded task, checks, history, comparison of weights). The ratio is bare time / our time.

    python benchmarks/retrain_overhead.py [--rounds 30] [--threads 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.methods.base import Context, State
from compressor.methods.retrain import Retrain
from compressor.progress import Silent
from compressor.task.contract import Task
from compressor.task.guard import GuardedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CHANNELS, HIDDEN, CLASSES = 12, 64, 9
BATCH, LENGTH, BATCHES, EPOCHS = 32, 29, 20, 2
LR, CLIP = 1e-3, 5.0
AIM = 0.95


class Classifier(nn.Module):
    """A recurrent layer and a Linear layer on its last step."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        """A model of that kind of layer."""
        super().__init__()
        self.recurrent = kind(CHANNELS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, T, C) to logits (B, K)."""
        return self.head(self.recurrent(features)[0][:, -1])


class RandomClasses(Task):
    """Random batches, made once."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        """Draw the batches."""
        generator = torch.Generator().manual_seed(0)
        self.data = [
            (
                (torch.randn(BATCH, LENGTH, CHANNELS, generator=generator),),
                torch.randint(CLASSES, (BATCH,), generator=generator),
            )
            for _ in range(BATCHES)
        ]
        self.kind = kind

    def model(self) -> nn.Module:
        """The same weights every time."""
        torch.manual_seed(0)
        return Classifier(self.kind)

    def example(self, batch: int, length: int) -> tuple[Tensor, ...]:
        """Zeros."""
        return (torch.zeros(batch, length, CHANNELS),)

    def batches(self, generator: torch.Generator) -> Iterable[tuple[tuple[Tensor, ...], Tensor]]:
        """The same list every epoch."""
        return self.data

    def loss(self, outputs: Any, target: Any) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward: Callable[..., Any]) -> float:
        """A constant, which costs nothing: the bare loop computes no metric either."""
        return 0.0


def train_bare(model: nn.Module, task: RandomClasses, masks: Mapping[str, Tensor], device: torch.device) -> None:
    """What one would write by hand."""
    model = copy.deepcopy(model).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    masked = [(model.get_parameter(name), mask) for name, mask in masks.items()]
    for _ in range(EPOCHS):
        for (features,), target in task.data:
            optimizer.zero_grad()
            loss = task.loss(model(features.to(device)), target.to(device))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            with torch.no_grad():
                for parameter, mask in masked:
                    parameter.mul_(mask)


def train_ours(model: nn.Module, task: RandomClasses, masks: Mapping[str, Tensor], device: torch.device) -> None:
    """The same by the method."""
    context = Context(GuardedTask(task, __file__), model, device, torch.Generator().manual_seed(0), Silent())
    Retrain(epochs=EPOCHS, lr=LR, clip=CLIP).apply(State(model, masks), context)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time of one run; on CUDA between two events on the stream."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratios(task: RandomClasses, masked: bool, rounds: int, device: torch.device) -> list[float]:
    """Bare time / our time of each round, after one warm-up of both."""
    model = task.model().to(device)
    masks: dict[str, Tensor] = {}
    if masked:
        generator = torch.Generator().manual_seed(1)
        for name in ("recurrent.weight_ih_l0", "recurrent.weight_hh_l0"):
            shape = model.get_parameter(name).shape
            masks[name] = (torch.rand(shape, generator=generator) < 0.5).to(device)
    sides = [lambda: train_bare(model, task, masks, device), lambda: train_ours(model, task, masks, device)]
    found = []
    for index in range(-1, rounds):
        order = (0, 1) if index % 2 else (1, 0)
        taken = {side: seconds(sides[side], device) for side in order}
        if index >= 0:
            found.append(taken[0] / taken[1])
    return found


def median_interval(values: list[float], resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of the median."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(resamples))
    return medians[math.floor(0.025 * resamples)], medians[math.ceil(0.975 * resamples) - 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(f"device {device}, torch {torch.__version__}, {options.threads} thread(s), {options.rounds} rounds")
    print(f"H {HIDDEN}, batch {BATCH}, length {LENGTH}, {EPOCHS} x {BATCHES} batches a run, Adam, clip {CLIP}")
    reached = True
    for kind in (nn.GRU, nn.LSTM):
        for masked in (False, True):
            found = ratios(RandomClasses(kind), masked, options.rounds, device)
            low, high = median_interval(found)
            median = statistics.median(found)
            reached &= median >= AIM
            label = f"{kind.__name__}, masks {'on' if masked else 'off'}"
            print(f"{label:16}  throughput ratio {median:.3f}  [{low:.3f}, {high:.3f}]")
    print(f"aim {AIM}: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

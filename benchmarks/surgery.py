"""How long the removal of units takes, and how much memory: half of each layer of a large bidirectional LSTM.

    python benchmarks/surgery.py [--hidden 1024] [--layers 4] [--ratio 0.5] [--runs 5] [--threads 1]

Times `prune` as the pipeline calls it, with the check that the smaller model gives what the original gives with the
same units silenced, at two shapes. Wall and processor time are medians; the peak of the resident set (Linux) is that of
the first run, and compared with the bytes of the model's parameters.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 10
SHAPES = ((2, 1), (3, 32))
"""(batch, length): the shortest and the typical length of a task, by default."""
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Net(nn.Module):
    """A stacked bidirectional LSTM and a Linear on each step."""

    def __init__(self, hidden: int, layers: int) -> None:
        """Random weights: neither time nor memory depends on them."""
        super().__init__()
        self.rnn = nn.LSTM(hidden, hidden, layers, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, hidden) -> (B, T, CLASSES)."""
        return self.head(self.rnn(features)[0])


def remove(model: Net, ratio: float) -> nn.Module:
    """One removal, checked at `SHAPES`."""
    examples = [(torch.randn(*shape, model.rnn.input_size),) for shape in SHAPES]
    return prune(model, {}, examples, names=["rnn"], amount=Amount(ratio=ratio)).model


@torch.no_grad()
def forward(model: Net) -> None:
    """What the check asks of the original: one pass at each of `SHAPES`."""
    for shape in SHAPES:
        model(torch.randn(*shape, model.rnn.input_size))


def median_seconds(action: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median seconds on the wall and of the processor."""
    times = []
    for _ in range(runs):
        gc.collect()
        wall, processor = time.perf_counter(), time.process_time()
        action()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    walls, processors = zip(*times, strict=True)
    return statistics.median(walls), statistics.median(processors)


def resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def peak(model: Net, ratio: float) -> int | None:
    """Bytes by which the resident set grows at its peak during one removal; None if the system does not tell."""
    if not CLEAR_REFS.exists():
        return None
    gc.collect()
    CLEAR_REFS.write_text("5")  # resets the peak
    before = resident("VmRSS")
    remove(model, ratio)
    return resident("VmHWM") - before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    remove(Net(16, 2), options.ratio)  # imports and set-up of torch itself
    model = Net(options.hidden, options.layers)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    extra = peak(model, options.ratio)
    wall, processor = median_seconds(lambda: remove(model, options.ratio), options.runs)
    own_wall, own_processor = median_seconds(lambda: forward(model), options.runs)
    print(f"nn.LSTM({options.hidden}, {options.hidden}, {options.layers}, bidirectional=True): {size / 1e6:.0f} MB")
    print(f"medians of {options.runs}, {options.threads} thread(s)")
    print(f"prune: wall {wall:.2f} s, processor {processor:.2f} s")
    print(f"the original's forward passes alone: wall {own_wall:.2f} s, processor {own_processor:.2f} s")
    if extra is not None:
        print(f"peak {extra / 1e6:.0f} MB on top of the model; with the model {1 + extra / size:.2f} times its size")


if __name__ == "__main__":
    main()

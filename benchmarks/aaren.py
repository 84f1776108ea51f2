"""Training an Aaren: its parallel form beside the recurrence, and beside PyTorch's own causal attention.

    python benchmarks/aaren.py [--lengths 1024 4096] [--batch 2] [--heads 8] [--width 64] [--rounds 15] [--device cpu]

Forward and backward, in float32, on given queries, keys, values and scores, without projections; then whole layers
with theirs. All take turns in one process, in a new random order each round; a ratio is the median over the rounds with
its 95 % interval. The recurrence and the form with all N x N weights are timed up to a length of 1,024, in the fewest
rounds that give an interval. Memory is by how much one forward and backward pass lets the process grow at its peak
(Linux), in a fresh process; on CUDA the peak of the allocator.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.measure.latency import FEWEST_ROUNDS
from compressor.measure.statistics import speed_up
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.prefix import naive, whole
from compressor.nn.attention.prefix_scan import parallel

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LONGEST_SLOW = 1024
"""Up to which length the recurrence and the form with all N x N weights are run."""
PYTORCH, RECURRENCE, PARALLEL, WHOLE = "scaled_dot_product_attention", "recurrence", "parallel", "whole (N x N)"
LAYER, OUR_LAYER = "nn.MultiheadAttention", "AarenAttention"


@dataclass(frozen=True)
class Size:
    """What is computed."""

    batch: int
    heads: int
    width: int
    """Features of a head."""
    length: int
    device: str


def form(name: str, size: Size) -> Callable[[], None]:
    """One forward and backward pass of that form."""
    torch.manual_seed(0)
    shape = (size.batch, size.heads, size.length, size.width)
    query, key, value, gradient = (torch.randn(shape, device=size.device) for _ in range(4))
    scores = (query[..., :1, :] * key).sum(-1).div_(size.width**0.5)  # (B, h, N), those of the first query
    inputs = [part.requires_grad_() for part in ((query, key, value) if name == PYTORCH else (scores, value))]
    forms: dict[str, Callable[..., Tensor]] = {
        PYTORCH: lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        RECURRENCE: naive,
        PARALLEL: parallel,
        WHOLE: whole,
    }

    def run() -> None:
        for part in inputs:
            part.grad = None
        forms[name](*inputs).backward(gradient)

    return run


def layer(name: str, size: Size) -> Callable[[], None]:
    """One forward and backward pass of a whole layer of heads * width features."""
    torch.manual_seed(0)
    width = size.heads * size.width
    attention: nn.Module = nn.MultiheadAttention(width, size.heads, batch_first=True, device=size.device)
    if name == OUR_LAYER:
        attention = AarenAttention.from_attention(attention)
    x = torch.randn(size.batch, size.length, width, device=size.device, requires_grad=True)
    gradient = torch.randn_like(x)
    mask = nn.Transformer.generate_square_subsequent_mask(size.length, device=size.device)

    def run() -> None:
        attention.zero_grad()
        x.grad = None
        attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0].backward(gradient)

    return run


def work(name: str, size: Size) -> Callable[[], None]:
    """What is timed under that name."""
    return layer(name, size) if name in (LAYER, OUR_LAYER) else form(name, size)


def timed(run: Callable[[], None], device: str) -> float:
    """Milliseconds."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def compare(names: list[str], size: Size, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, round by round."""
    runs = {name: work(name, size) for name in names}
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            times[name].append(timed(runs[name], size.device))
    gc.enable()
    return times


def resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def growth(name: str, size: Size) -> int:
    """Bytes by which this process grows at the peak of one pass."""
    small = Size(size.batch, size.heads, size.width, 8, size.device)
    work(name, small)()  # libraries take memory for themselves at the first call
    run = work(name, size)
    if size.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    CLEAR_REFS.write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def memory(name: str, size: Size) -> str:
    """`growth` in a process of its own, in MiB."""
    if size.device == "cpu" and not CLEAR_REFS.exists():
        return "unknown"
    numbers = [str(number) for number in (size.batch, size.heads, size.width, size.length)]
    command = [sys.executable, __file__, "--growth", name, *numbers, size.device]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return f"{int(found.stdout) / 2**20:,.0f}"


def table(names: list[str], size: Size, rounds: int) -> None:
    """Time and print; the ratios are those of the first name's time to each other one's."""
    times = compare(names, size, rounds)
    for name in names:
        line = f"  {name:30} {statistics.median(times[name]):10.2f} ms   {memory(name, size):>8} MiB"
        if name != names[0]:
            found = speed_up(times[names[0]], times[name])
            line += f"   {found.ratio:.2f}x as fast [{found.interval.low:.2f}, {found.interval.high:.2f}]"
        print(line, flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--growth"]:
        name, batch, heads, width, length, device = sys.argv[2:]
        torch.set_num_threads(1)
        print(growth(name, Size(int(batch), int(heads), int(width), int(length), device)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--width", type=int, default=64, help="features of a head")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for length in options.lengths:
        size = Size(options.batch, options.heads, options.width, length, options.device)
        print(f"{size}, {options.threads} thread(s), {options.rounds} rounds")
        if length <= LONGEST_SLOW:
            table([RECURRENCE, PARALLEL], size, FEWEST_ROUNDS)
            table([PYTORCH, WHOLE], size, FEWEST_ROUNDS)
        table([PYTORCH, PARALLEL], size, options.rounds)
        table([LAYER, OUR_LAYER], size, options.rounds)


if __name__ == "__main__":
    main()

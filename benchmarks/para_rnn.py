"""Training a diagonal GRU or LSTM over time: all positions at once beside one position after the other.

    python benchmarks/para_rnn.py [--lengths 256 1024 4096] [--batch 8] [--units 128] [--rounds 7] [--device cpu]

Forward and backward of one `ParaLayer` in both forms, interleaved in one process; with `--device cuda` also PyTorch's
GRU (cuDNN) of the same width, which has a dense recurrent matrix. Ratios with 95 % intervals of the median over rounds.
It also prints the error of Newton's method after each iteration, at clips of 0.5 and 0.9.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.aaren import timed
from compressor.measure.statistics import speed_up
from compressor.nn.converted.para_rnn import ParaLayer

CELLS = ("gru", "lstm")


def recurrence(cell: str, form: str, options: argparse.Namespace, length: int) -> Callable[[], None]:
    """One forward and backward pass of the recurrence in a form: `parallel`, `in order` or `cuDNN`."""
    torch.manual_seed(0)
    units, device = options.units, options.device
    x = torch.randn(options.batch, length, units, device=device, requires_grad=True)
    gradient = torch.randn(options.batch, length, units, device=device)
    if form == "PyTorch":
        dense = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](units, units, batch_first=True, device=device)
        return lambda: dense(x)[0].backward(gradient)
    layer = ParaLayer(units, units, hidden=units, cell=cell, device=device)  # type: ignore[arg-type]
    if form == "parallel":
        return lambda: layer.in_parallel(layer.project(x)).backward(gradient)
    return lambda: layer.in_order(layer.project(x), layer.zeros(options.batch))[0].backward(gradient)


def row(cell: str, length: int, options: argparse.Namespace) -> str:
    """All forms at one length, as a row of a table."""
    forms = {form: recurrence(cell, form, options, length) for form in ("parallel", "in order", "PyTorch")}
    times: dict[str, list[float]] = {form: [] for form in forms}
    for run in forms.values():
        run()
    order = random.Random(0)
    for _ in range(options.rounds):
        for form in order.sample(list(forms), len(forms)):
            times[form].append(timed(forms[form], options.device))
    cells = [f"{statistics.median(times[form]):.1f}" for form in forms]
    for other in ("in order", "PyTorch"):
        ratio = speed_up(times[other], times["parallel"])
        cells.append(f"{ratio.ratio:.2f}x ({ratio.interval.low:.2f} to {ratio.interval.high:.2f})")
    return f"| {cell.upper()} | {length} | {' | '.join(cells)} |"


def errors(cell: str, clip: float) -> str:
    """The largest error against the recurrence after 0, 1, ... iterations, in float64 at 512 positions."""
    torch.manual_seed(0)
    layer = ParaLayer(32, 32, hidden=32, cell=cell, clip=clip, dtype=torch.float64)  # type: ignore[arg-type]
    with torch.no_grad():
        for diagonal in layer.diagonals:  # the values themselves are drawn evenly between minus and plus the clip
            nn.init.zeros_(layer.project.bias)
            diagonal.copy_(torch.atanh(torch.empty(32, dtype=torch.float64).uniform_(-0.999, 0.999)))
    gates = layer.project(2.0 * torch.randn(4, 512, 32, dtype=torch.float64))
    with torch.no_grad():
        expected = layer.in_order(gates, layer.zeros(4))[0]
        found = [layer.newton(gates, most).states[:, :, 0].transpose(0, 1) for most in range(6)]
    shown = " | ".join(f"{float((states - expected).abs().max()):.1e}" for states in found)
    return f"| {cell.upper()} | {clip} | {shown} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="training forms of diagonal recurrences")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("| cell | clip | error after 0 iterations | 1 | 2 | 3 | 4 | 5 |\n|---|---|---|---|---|---|---|---|")
    for cell in CELLS:
        for clip in (0.5, 0.9):
            print(errors(cell, clip))
    print(
        "\n| cell | positions | parallel, ms | in order, ms | PyTorch's dense layer, ms | in order / parallel "
        "| PyTorch / parallel |\n|---|---|---|---|---|---|---|"
    )
    for cell in CELLS:
        for length in options.lengths:
            print(row(cell, length, options), flush=True)


if __name__ == "__main__":
    main()

"""How much of the saved arithmetic becomes time: units of a recurrent layer removed, both files timed interleaved.

    python benchmarks/unit_speedup.py [--cell lstm] [--layers 1] [--hidden 512] [--ratio 0.5]

Prints the MACs of both exported files, the measured ratio with its interval, and ratio / MAC reduction.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.recurrent_net import CELLS, Net
from compressor.formats import Job
from compressor.measure import latency, macs
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import RandomTask, normal
from exporters import onnx

TIMED = {0: "batch", 1: "time"}
INPUT, CLASSES, STEPS = 64, 10, 100


def main() -> None:
    """Build, prune, export, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    task = RandomTask({"features": TIMED}, {"output": {0: "batch"}}, normal(INPUT), length=STEPS, max_length=2 * STEPS)
    model = Net(options.cell, INPUT, options.hidden, options.layers, CLASSES, last=True).eval()
    smaller = prune(model, {}, [task.example(2, 3)], names=["rnn"], amount=Amount(ratio=options.ratio)).model
    inputs = task.example(1, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "original.onnx", Path(folder) / "smaller.onnx"]
        for path, net in zip(paths, (model, smaller), strict=True):
            onnx.export(Job(net, task, path, onnx.Options(format="onnx")))
        counts = [macs.count(path, inputs) or 0 for path in paths]
        times, (ratio,) = latency.compare(
            paths, [inputs] * 2, batch=1, length=STEPS, rounds=options.rounds, max_seconds=120
        )
    saved = counts[0] / counts[1]
    print(f"{options.cell} {INPUT}->{options.hidden}, {options.layers} layer(s), {STEPS} steps, batch 1, 1 thread")
    print(f"MACs {counts[0]:,} -> {counts[1]:,}: {saved:.2f}x fewer")
    print(f"p50 {times[0].p50:.3f} ms -> {times[1].p50:.3f} ms")
    low, high = ratio.interval.low, ratio.interval.high
    print(f"speed-up {ratio.ratio:.2f}x [{low:.2f}, {high:.2f}] = {ratio.ratio / saved:.2f} of the MAC reduction")


if __name__ == "__main__":
    main()

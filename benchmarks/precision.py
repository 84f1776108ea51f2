"""What 8 and 4 bits do to recurrent layers and convolutions in ONNX Runtime: sizes and times, files interleaved.

    python benchmarks/precision.py [--cells lstm gru rnn conv] [--layers 2] [--hidden 512] [--step] [--any-size]

For each cell: the float file, `precision: int8` and `int4` for the CPU and for anywhere, half of the units, and half of
the units in 8 bits. With `--step` their step files. With `--any-size` a Scan is written for layers that are too
small for it to pay as well, which shows from what size on it does. Weights are random: speed and size do not depend on
them, and the error is that of an untrained layer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.recurrent_net import CELLS, Net
from compressor.formats import Job
from compressor.measure import latency
from compressor.runtimes.steps import Steps
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.testing import RandomTask, normal
from exporters import onnx
from exporters.onnx_files.step import step_path
from exporters.quantization import matrices

TIMED = {0: "batch", 1: "time"}
INPUT, CLASSES, STEPS = 40, 10, 100
FORMS: dict[str, dict[str, Any]] = {
    "float": {},
    "int8, cpu": {"precision": "int8", "rounding": {"max_error": 0.5}},
    "int8, anywhere": {"precision": "int8", "rounding": {"quantize_for": "anywhere", "max_error": 0.5}},
    "int4, cpu": {"precision": "int4", "rounding": {"max_error": 1.0}},
    "int4, anywhere": {"precision": "int4", "rounding": {"quantize_for": "anywhere", "max_error": 1.0}},
    "half of the units": {},
    "half of the units, int8": {"precision": "int8", "rounding": {"max_error": 0.5}},
}


class Convolutions(nn.Module):
    """Causal convolutions over three steps, and a Linear on every step."""

    def __init__(self, channels: int, layers: int) -> None:
        """Random weights."""
        super().__init__()
        widths = [INPUT] + [channels] * layers
        self.layers = nn.ModuleList(nn.Conv1d(widths[at], widths[at + 1], 3) for at in range(layers))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, CLASSES)."""
        heard = features.transpose(1, 2)
        for convolution in self.layers:
            heard = torch.relu(convolution(nn.functional.pad(heard, (2, 0))))
        return self.head(heard.transpose(1, 2))


def main() -> None:
    """Export, time, print one line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=[*CELLS, "conv"], default=list(CELLS))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--any-size", action="store_true")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--max-seconds", type=float, default=120.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.any_size:
        matrices.SCAN_UNITS.clear()
    what = "one step of a stream" if options.step else f"{STEPS} steps"
    print(f"{INPUT} -> {options.layers} x {options.hidden}, {what}, batch 1, 1 thread")
    for cell in options.cells:
        compare(cell, options)


def compare(cell: str, options: argparse.Namespace) -> None:
    """All files of one cell."""
    torch.manual_seed(0)
    task = RandomTask({"features": TIMED}, {"scores": TIMED}, normal(INPUT), length=STEPS, max_length=2 * STEPS)
    if cell == "conv":
        model: nn.Module = Convolutions(options.hidden, options.layers).eval()
        names = [f"layers.{at}" for at in range(options.layers)]
    else:
        model, names = Net(cell, INPUT, options.hidden, options.layers, CLASSES).eval(), ["rnn"]
    smaller = prune(model, {}, [task.example(2, 3)], names=names, amount=Amount(ratio=0.5)).model
    with tempfile.TemporaryDirectory() as folder:
        artifacts, paths = [], []
        for number, (name, words) in enumerate(FORMS.items()):
            path = Path(folder) / f"{number}.onnx"
            net = smaller if name.startswith("half") else model
            whole = onnx.export(Job(net, task, path, onnx.Options(format="onnx", stream=options.step, **words)))
            artifacts.append(whole.step if options.step and whole.step else whole)
            paths.append(step_path(path) if options.step else path)
        inputs = [list(task.example(1, 1 if options.step else STEPS))] * len(paths)
        if options.step:
            inputs = [Steps(path).one_step(inputs[0], past=0) for path in paths]
        times, ratios = latency.compare(
            paths,
            inputs,
            batch=1,
            length=1 if options.step else STEPS,
            rounds=options.rounds,
            max_seconds=options.max_seconds,
        )
    print(f"{cell}: {'file':24} {'bytes':>10} {'smaller':>8} {'p50 ms':>8} {'faster':>22}  error")
    for index, (name, artifact, timed) in enumerate(zip(FORMS, artifacts, times, strict=True)):
        ratio = f"{1:.2f}"
        if index:
            faster = ratios[index - 1]
            ratio = f"{faster.ratio:.2f} [{faster.interval.low:.2f}, {faster.interval.high:.2f}]"
        error = f"{artifact.quantization.error:.1e}" if artifact.quantization else ""
        smaller_by = artifacts[0].bytes / artifact.bytes
        print(f"     {name:24} {artifact.bytes:10,} {smaller_by:7.2f}x {timed.p50:8.3f} {ratio:>22}  {error}")


if __name__ == "__main__":
    main()

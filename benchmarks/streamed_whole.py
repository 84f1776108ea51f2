"""What `stream: true` does to the whole-sequence file in 8 bits: its time, and its distance from the step file.

    python benchmarks/streamed_whole.py [--units 256] [--length 50]

A GRU and an LSTM with random weights. Three files run interleaved: float, 8 bits, and 8 bits with `stream: true`, which
rounds inputs with a scale per position as its step file does. Distances are relative (norm), with chained steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.formats import Job
from compressor.measure import latency
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask, normal
from exporters import onnx
from exporters.onnx_files.step import step_path

AXES = {0: "batch", 1: "time"}
INPUT, CLASSES = 40, 10
FORMS = {"float": {}, "int8": {"precision": "int8"}, "int8, stream": {"precision": "int8", "stream": True}}


class Net(nn.Module):
    """One recurrent layer and a Linear on every step."""

    def __init__(self, cell: type[nn.RNNBase], units: int) -> None:
        """Random weights."""
        super().__init__()
        self.rnn, self.head = cell(INPUT, units, batch_first=True), nn.Linear(units, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, CLASSES)."""
        return self.head(self.rnn(features)[0])


def main() -> None:
    """Export, compare, time; one line a cell and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for cell in (nn.GRU, nn.LSTM):
        torch.manual_seed(0)
        model = Net(cell, options.units).eval()
        task = RandomTask({"features": AXES}, {"scores": AXES}, normal(INPUT), model, length=options.length)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.onnx" for number in range(len(FORMS))]
            for path, given in zip(paths, FORMS.values(), strict=True):
                onnx.export(Job(model, task, path, onnx.Options(format="onnx", **given)))
            distances = ", ".join(f"batch {batch}: {distance(paths[-1], task, batch):.1e}" for batch in (1, 3))
            inputs = [list(task.example(1, options.length))] * len(paths)
            times, ratios = latency.compare(
                paths, inputs, batch=1, length=options.length, rounds=options.rounds, max_seconds=60.0
            )
        print(
            f"{cell.__name__} of {options.units} units, {options.length} positions, 1 thread; steps away: {distances}"
        )
        for name, timed, ratio in zip(FORMS, times, [None, *ratios], strict=True):
            between = "" if ratio is None else f"[{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]"
            faster = "" if ratio is None else f"{ratio.ratio:.2f} {between}"
            print(f"  {name:14} {timed.p50:8.3f} ms  {faster}")


def distance(path: Path, task: RandomTask, batch: int) -> float:
    """|steps - whole| / |whole| on random inputs."""
    (features,) = task.example(batch, task.length)
    whole = torch.as_tensor(OnnxFile(path).run({"features": features.numpy()})[0])
    steps = torch.as_tensor(Steps(step_path(path))(features))
    return float((steps - whole).norm() / whole.norm())


if __name__ == "__main__":
    main()

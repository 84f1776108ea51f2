"""Steps of a model of 2 x 512 units in LiteRT and ExecuTorch, float and quantized, beside ONNX Runtime: size and speed.

    python benchmarks/traced_formats.py [--hidden 512] [--rounds 40]

All files of a cell are loaded afresh and timed interleaved, each in its own runtime with one thread; a ratio is ONNX
Runtime's time over that of the file, with the interval of `compressor.measure.latency`. Errors are against PyTorch over
chained steps. Needs `compressor runtimes install litert executorch`; the conversions take some minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from compressor.formats import EXPORTERS, Job, export
from compressor.measure import latency
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask

INPUT, CLASSES = 40, 10
FILES = (
    ("ort", {}),
    ("litert", {}),
    ("litert", {"precision": "int8"}),
    ("litert", {"precision": "int4"}),
    ("executorch", {}),
    ("executorch", {"precision": "int8"}),
)


class Model(nn.Module):
    """Two layers and a head for every position."""

    def __init__(self, cell: str, hidden: int) -> None:
        """For `nn.LSTM` or `nn.GRU` by its name."""
        super().__init__()
        self.rnn = getattr(nn, cell)(INPUT, hidden, 2, batch_first=True)
        self.out = nn.Linear(hidden, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, I) to (B, T, C)."""
        return self.out(self.rnn(x)[0])


def main() -> None:
    """Convert, time and print a table for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    task = RandomTask(
        {"x": {0: "batch", 1: "time"}}, {"y": {0: "batch", 1: "time"}}, lambda b, t: (torch.randn(b, t, INPUT),)
    )
    for cell in ("LSTM", "GRU"):
        torch.manual_seed(0)
        model = Model(cell, options.hidden).eval()
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for number, (form, more) in enumerate(FILES):
                chosen = EXPORTERS[form].options(form="step", **more)
                rows.append(export(Job(model, task, Path(folder) / f"{number}.{form}", chosen)))
                print(f"{cell} {form} {more}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            paths = [Path(folder) / row.path for row in rows]
            given = [Steps(path).one_step(task.example(1, 11), past=0) for path in paths]
            taken, ratios = latency.compare(paths, given, batch=1, length=1, rounds=options.rounds, max_seconds=600)
        print(f"\n{cell} 2 x {options.hidden}, {INPUT} inputs, one step, batch 1, one thread\n")
        print("| file | runtime | MB | error | ms, median | ONNX Runtime / this, 95 % |\n|---|---|---|---|---|---|")
        for (form, more), row, time, ratio in zip(FILES, rows, taken, [None, *ratios], strict=True):
            error = max(point.max_absolute for point in row.parity.points)
            within = "" if ratio is None else f"({ratio.interval.low:.2f} to {ratio.interval.high:.2f})"
            said = "1" if ratio is None else f"{ratio.ratio:.2f} {within}"
            name = f"{form} {more.get('precision', 'float32')}"
            print(
                f"| {name} | {row.runtime} | {row.bytes / 1e6:.2f} | {error:.1e} | {time.p50:.3f} | {said} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

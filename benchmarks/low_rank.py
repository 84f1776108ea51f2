"""From which rank on a recurrent layer of factors runs faster than the dense native node, all files timed interleaved.

    python benchmarks/low_rank.py [--cells lstm gru] [--hidden 512] [--ranks 256 128 64] [--steps 100] [--batch 1]

For every hidden size and cell: the dense file, the recurrent matrix at each rank (a Scan), and both matrices at it.
With `--steps 1` the files are of one step, as for streaming.
Prints MACs, file sizes and how many times as fast as dense each is, with its interval. Random weights: speed does not
depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.formats import Job
from compressor.measure import latency, macs
from compressor.nn.factorisation import Spectrum
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.testing import RandomTask, normal
from exporters import onnx

TIMED = {0: "batch", 1: "time"}
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Net(nn.Module):
    """A recurrent layer alone, every step given out."""

    def __init__(self, rnn: nn.Module) -> None:
        """Around any kind of layer."""
        super().__init__()
        self.rnn = rnn

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, I) -> (B, T, H)."""
        return self.rnn(features)[0]


def random_task(features: int, steps: int) -> RandomTask:
    """Random features, up to twice as long; one step for a single one."""
    output = {0: "batch"} if steps == 1 else TIMED
    longest = 1 if steps == 1 else 2 * steps
    return RandomTask({"input": TIMED}, {"output": output}, normal(features), length=steps, max_length=longest)


def factored(rnn: nn.RNNBase, rank: int, *, both: bool) -> nn.Module:
    """The layer with its recurrent matrix, or both, at a rank."""
    wanted = ("weight_hh", "weight_ih") if both else ("weight_hh",)
    found = {
        name: Spectrum(parameter).factors(min(rank, *parameter.shape))
        for name, parameter in rnn.named_parameters()
        if name.startswith(wanted)
    }
    return LowRankRecurrent.from_module(rnn, found)


def main() -> None:
    """Build, factor, export, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["lstm", "gru"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[512])
    parser.add_argument("--ranks", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--inputs", type=int, help="input features; as many as hidden units by default")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the files of one cell and hidden size")
    options = parser.parse_args()
    print(f"{options.layers} layer(s), {options.steps} steps, batch {options.batch}, 1 thread")
    for cell in options.cells:
        for hidden in options.hidden:
            _measure(cell, hidden, options)


def _measure(cell: str, hidden: int, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    features = options.inputs or hidden
    rnn = CELLS[cell](features, hidden, options.layers, batch_first=True)
    task = random_task(features, options.steps)
    inputs = task.example(options.batch, options.steps)
    models = {"dense": rnn}
    for rank in (rank for rank in options.ranks if rank < hidden):
        models[f"W_hh rank {rank}"] = factored(rnn, rank, both=False)
        models[f"both rank {rank}"] = factored(rnn, rank, both=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.onnx" for index in range(len(models))]
        for path, layer in zip(paths, models.values(), strict=True):
            onnx.export(Job(Net(layer).eval(), task, path, onnx.Options()))
        counts = [macs.count(path, inputs) or 0 for path in paths]
        sizes = [path.stat().st_size for path in paths]
        times, ratios = latency.compare(
            paths, [inputs] * len(paths), batch=options.batch, length=options.steps, rounds=options.rounds,
            max_seconds=options.seconds,
        )  # fmt: skip
    print(f"\n{cell} {features} -> {hidden}")
    print(f"{'':<14}{'MACs':>12}{'KiB':>8}{'ms':>8}  times as fast")
    for index, name in enumerate(models):
        ratio = ratios[index - 1]
        text = f"{ratio.ratio:.2f} [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]" if index else ""
        print(f"{name:<14}{counts[index]:>12,}{sizes[index] / 1024:>8.0f}{times[index].p50:>8.3f}  {text}")


if __name__ == "__main__":
    main()

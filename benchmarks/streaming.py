"""One more position: the step of an Aaren beside that of the attention with a cache that it replaces.

    python benchmarks/streaming.py [--width 64] [--heads 4] [--layers 2] [--feedforward 256]
    python benchmarks/streaming.py --cells          the recurrent layers of a step as plain operations and as nodes

The same encoder twice, once with each attention, exported by `exporters.onnx` with `stream: true`, which checks that
the chained steps agree with the whole sequence, also over ten times the length of the task. Each pair of files is timed
interleaved, one thread, batch 1; the ratio is the median over rounds with its 95 % interval.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.formats import Job
from compressor.measure import latency
from compressor.nn.attention.aaren import AarenAttention
from compressor.runtimes.steps import Steps, initial_state
from compressor.testing import RandomTask, normal
from exporters import onnx

if TYPE_CHECKING:
    from compressor.report import Latency, SpeedUp

TIMED = {0: "batch", 1: "time"}
INPUT = 16
LENGTH = 64
PAST = (16, 64, 256, 1024, 4096)
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
NEVER_WRITTEN = ("CumSum", "ReduceLogSumExp", "Scan", "Loop")


class Encoder(nn.Module):
    """`INPUT` features -> causal encoder layers -> one number for each position."""

    def __init__(self, width: int, heads: int, layers: int, feedforward: int) -> None:
        """Random weights: speed does not depend on them."""
        super().__init__()
        self.given = nn.Linear(INPUT, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, 1)."""
        mask = nn.Transformer.generate_square_subsequent_mask(features.size(1))
        output: Tensor = self.head(self.encoder(self.given(features), mask=mask, is_causal=True))
        return output


class Recurrent(nn.Module):
    """`INPUT` features -> recurrent layers -> one number for each position."""

    def __init__(self, cell: str, hidden: int) -> None:
        """Two layers."""
        super().__init__()
        self.rnn = CELLS[cell](INPUT, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, 1)."""
        output: Tensor = self.head(self.rnn(features)[0])
        return output


def with_aaren(model: Encoder) -> Encoder:
    """The same encoder with Aarens that have a query of random numbers."""
    model = copy.deepcopy(model)
    for layer in model.encoder.layers:
        aaren = AarenAttention.from_attention(layer.self_attn)  # type: ignore[arg-type]
        nn.init.normal_(aaren.query)
        layer.self_attn = aaren
    return model.eval()


def exported(model: nn.Module, path: Path, **options: Any) -> Steps:
    """The step file of a model, checked."""
    task = RandomTask({"features": TIMED}, {"output": TIMED}, normal(INPUT), length=LENGTH, max_length=2 * LENGTH)
    artifact = onnx.export(Job(model, task, path, onnx.Options(stream=options or True)))
    assert artifact.step is not None
    longest = max(point.length for point in artifact.step.parity.points)
    largest = max(point.max_absolute for point in artifact.step.parity.points)
    refused = [name for name in NEVER_WRITTEN if name in artifact.step.operators]
    assert not refused, refused
    print(
        f"{artifact.step.path}: {artifact.step.bytes:,} bytes, {sum(artifact.step.operators.values())} nodes; chained "
        f"steps differ from PyTorch by at most {largest:.1e} over up to {longest} positions"
    )
    return Steps(path.with_name(artifact.step.path))


def after(steps: Steps, past: int) -> list[Tensor]:
    """The inputs of a step behind `past` others: run, where the states stay as large, else drawn."""
    states = [initial_state(state, 1, past=past) for state in steps.info.states]
    position = torch.randn(1, 1, INPUT)
    if steps.info.grows:
        return [position, *(torch.randn_like(state) for state in states)]
    for _ in range(past):
        _, *states = steps.file(torch.randn(1, 1, INPUT), *states)
    return [position, *states]


def timed(files: list[Steps], inputs: list[list[Tensor]], rounds: int) -> tuple[list[Latency], SpeedUp]:
    """Two files interleaved: their latencies, and first / second."""
    times, (ratio,) = latency.compare(
        [file.file.path for file in files], inputs, batch=1, length=1, rounds=rounds, runs=20, max_seconds=60
    )
    return times, ratio


def shown(ratio: SpeedUp) -> str:
    """2.00x [1.90, 2.10]."""
    return f"{ratio.ratio:.2f}x [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]"


def attention(options: argparse.Namespace, folder: Path) -> None:
    """Aaren beside the cache."""
    model = Encoder(options.width, options.heads, options.layers, options.feedforward).eval()
    print(f"width {options.width}, {options.heads} heads, {options.layers} layers, feed-forward {options.feedforward}")
    cache = exported(model, folder / "cache.onnx")
    aaren = exported(with_aaren(model), folder / "aaren.onnx")
    print(
        "| past positions | cache, p50 ms | Aaren, p50 ms | cache / Aaren | cache, state bytes | Aaren, state bytes |"
    )
    print("|---|---|---|---|---|---|")
    for past in PAST:
        times, ratio = timed([cache, aaren], [after(cache, past), after(aaren, past)], options.rounds)
        sizes = [file.info.state_bytes(past) for file in (cache, aaren)]
        print(
            f"| {past:,} | {times[0].p50:.4f} | {times[1].p50:.4f} | {shown(ratio)} | {sizes[0]:,} | {sizes[1]:,} |",
            flush=True,
        )
    times, ratio = timed([aaren, aaren], [after(aaren, PAST[-1]), after(aaren, PAST[0])], options.rounds)
    print(f"Aaren at {PAST[-1]:,} / at {PAST[0]}: {shown(ratio)}")
    times, ratio = timed([cache, cache], [after(cache, PAST[-1]), after(cache, PAST[0])], options.rounds)
    print(f"cache at {PAST[-1]:,} / at {PAST[0]}: {shown(ratio)}")


def cells(options: argparse.Namespace, folder: Path) -> None:
    """Plain operations beside native nodes."""
    print("| layers | native, p50 ms | plain, p50 ms | native / plain |")
    print("|---|---|---|---|")
    for hidden in (64, 256, 512):
        for cell in CELLS:
            model = Recurrent(cell, hidden).eval()
            files = [exported(model, folder / f"{kind}.onnx", cells=kind) for kind in ("native", "plain")]
            inputs = [after(file, 8) for file in files]
            times, ratio = timed(files, inputs, options.rounds)
            print(f"| {cell} 2 x {hidden} | {times[0].p50:.4f} | {times[1].p50:.4f} | {shown(ratio)} |", flush=True)


def main() -> None:
    """Export, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--feedforward", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cells", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (cells if options.cells else attention)(options, Path(folder))


if __name__ == "__main__":
    main()

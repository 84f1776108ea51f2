"""How long a pooling takes alone, exported: self-attentive, one query of multi-head attention, and LAMA, interleaved.

    python benchmarks/lama.py [--width 128] [--heads 4] [--rounds 40]

The first has 350 hidden units and as many hops as heads, as in the movie-sentiment sample. Every file takes a sequence
and the mask of its real steps, batch 1; LAMA with a readout to the same output (`mix` or `linear`). Prints parameters,
medians, and how many times as fast LAMA is, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.formats import Job
from compressor.measure import latency
from compressor.nn.attention.lama import LamaAttention
from compressor.nn.attention.pooling import PoolingReplacement
from compressor.nn.attention.pooling_call import PoolingCall
from compressor.testing import RandomTask
from exporters import onnx

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED = {0: "batch", 1: "time"}
HIDDEN = 350
LENGTHS = (20, 100, 500)


class Attentive(nn.Module):
    """softmax(W2 tanh(W1 H^T)) H, flattened."""

    def __init__(self, width: int, hops: int) -> None:
        """Random weights: speed does not depend on them."""
        super().__init__()
        self.hidden, self.hops = nn.Linear(width, HIDDEN, bias=False), nn.Linear(HIDDEN, hops, bias=False)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) and (B, T) to (B, hops * D)."""
        scores = self.hops(torch.tanh(self.hidden(states)))
        weights = scores.masked_fill(~real[:, :, None], -1e4).softmax(1)
        return (weights.transpose(1, 2) @ states).flatten(1)


class Query(nn.Module):
    """A single query of multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        """Random weights: speed does not depend on them."""
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) and (B, T) to (B, D)."""
        query = self.query.expand(states.size(0), -1, -1)
        return self.attention(query, states, states, key_padding_mask=~real, need_weights=False)[0][:, 0]


def padded(width: int) -> Callable[[int, int], tuple[Tensor, ...]]:
    """Normal features (B, T, width); all but the first step of every second sequence is padding."""

    def example(batch: int, length: int) -> tuple[Tensor, ...]:
        real = torch.ones(batch, length, dtype=torch.bool)
        real[1::2, 1:] = False
        return torch.randn(batch, length, width), real

    return example


def main() -> None:
    """Build, export, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(0)
    width, heads = options.width, options.heads
    task = RandomTask(
        {"states": TIMED, "real": TIMED}, {"output": {0: "batch"}}, padded(width), length=100, max_length=500
    )
    call = PoolingCall(("states", "real"), "states", mask="real", mask_kind="real")
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (
            Attentive(width, heads),
            PoolingReplacement(call, LamaAttention(width, heads), heads * width, "mix"),
        ),
        (Query(width, heads), PoolingReplacement(call, LamaAttention(width, heads), width, "linear")),
    ]
    print(f"D = {width}, m = {heads}, batch 1, 1 thread, {options.rounds} rounds")
    for pair in pairs:
        counts = [sum(parameter.numel() for parameter in module.parameters()) for module in pair]
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / "original.onnx", Path(folder) / "lama.onnx"]
            for path, module in zip(paths, pair, strict=True):
                onnx.export(Job(module.eval(), task, path, onnx.Options(format="onnx")))
            for length in LENGTHS:
                inputs = task.example(1, length)
                times, (ratio,) = latency.compare(
                    paths, [inputs] * 2, batch=1, length=length, threads=1, seed=0, rounds=options.rounds
                )
                name, readout = type(pair[0]).__name__, pair[1].kind
                interval = f"[{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]"
                print(
                    f"{name:10} {counts[0]:7,} parameters, LAMA with {readout:6} {counts[1]:7,}; T = {length:3}: "
                    f"{times[0].p50:.3f} ms, {times[1].p50:.3f} ms, {ratio.ratio:.2f}x {interval}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

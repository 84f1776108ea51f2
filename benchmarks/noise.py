"""Does the latency comparison invent differences? One file is compared with itself, again and again.

    python benchmarks/noise.py [--trials 60] [--hidden 64] [--threads 1]

Every trial is one whole comparison of two names of the same bytes. About 95 in 100 of them must be reported as
within noise. Exit 1 where fewer are than chance alone explains (a one-sided binomial test at 1 in 1000).
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.measure import latency

if TYPE_CHECKING:
    from compressor.report import SpeedUp

INPUTS, LENGTH = 40, 50
CHANCE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        write_lstm(first, options.hidden)
        shutil.copy(first, second)
        within, ratios = 0, []
        for trial in range(options.trials):
            _, (faster,) = latency.compare(
                [first, second],
                [[torch.randn(LENGTH, 1, INPUTS)]] * 2,
                batch=1,
                length=LENGTH,
                threads=options.threads,
                rounds=options.rounds,
                seed=trial,
            )
            within += faster.within_noise
            ratios.append(faster.ratio)
            print(f"trial {trial + 1:3}: {verdict(faster)}")
    chance = binomial_tail(within, options.trials, latency.CONFIDENCE)
    print(
        f"within noise: {within} of {options.trials} ({within / options.trials:.1%}), stated {latency.CONFIDENCE:.0%}"
    )
    print(f"ratios from {min(ratios):.3f} to {max(ratios):.3f}; so few or fewer by chance: {chance:.3f}")
    return 0 if chance > CHANCE else 1


def verdict(faster: SpeedUp) -> str:
    ends = f"{faster.ratio:.3f} ({faster.interval.low:.3f} to {faster.interval.high:.3f})"
    return f"{ends}, within noise" if faster.within_noise else f"{ends}, NOT within noise"


def write_lstm(path: Path, hidden: int) -> None:
    """One LSTM layer of random weights over (time, batch, 40)."""
    draw = np.random.default_rng(0)
    weights = {
        "W": draw.standard_normal((1, 4 * hidden, INPUTS), dtype=np.float32),
        "R": draw.standard_normal((1, 4 * hidden, hidden), dtype=np.float32) / math.sqrt(hidden),
    }
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=hidden)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", 1, "batch", hidden])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def binomial_tail(hits: int, trials: int, probability: float) -> float:
    """P(at most `hits` successes in `trials`)."""
    return sum(
        math.comb(trials, count) * probability**count * (1 - probability) ** (trials - count)
        for count in range(hits + 1)
    )


if __name__ == "__main__":
    sys.exit(main())

"""Loops that end when a sample has settled: accuracy and steps of a trained Transformer, by threshold.

    python benchmarks/halting.py [--seeds 3]        # docs/results/depth.md; minutes of one core

The Transformer of the time-series sample for the Japanese vowels: its two layers become one in a loop of at most four
steps, which learns from the original. Thresholds are then tried on the test part; one file is written and scored.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path

import torch

from compressor.formats import Job
from compressor.measure import accuracy
from compressor.methods.base import Context, State
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.nn.halting import forget_steps, halting_layers
from compressor.progress import Silent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.forwards import TorchForward
from compressor.task.loading import load
from exporters.onnx import Options, export

CPU = torch.device("cpu")
THRESHOLDS = (0.03, 0.3, 0.4, 0.5, 0.7, 1.0)
WRITTEN = 0.5
TRAINING = Retrain(epochs=10, lr=3e-3, schedule="cosine", warmup=0.1, distill=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load("samples/time_series/task.py")
    original = task.model().eval()
    print(f"<!-- the original: {accuracy.score(task, TorchForward(original, CPU)).value:.2%} -->", flush=True)
    found: dict[float, list[tuple[float, float, int]]] = {threshold: [] for threshold in THRESHOLDS}
    for seed in range(options.seeds):
        context = Context(task, original, CPU, torch.Generator().manual_seed(seed), Silent())
        step = TieLayers(share="all", exit="latent_diff", threshold=WRITTEN, max_steps=4)
        model = TRAINING.apply(step.apply(State(original), context).state, context).state.model
        for threshold in THRESHOLDS:
            own = copy.deepcopy(model).eval()
            [loop] = halting_layers(own).values()
            loop.threshold = threshold
            forget_steps(own)
            value = accuracy.score(task, TorchForward(own, CPU)).value
            counts = list(loop.taken.elements())
            found[threshold].append((value, statistics.mean(counts), max(counts)))
            print(f"<!-- seed {seed}, threshold {threshold:g}: {found[threshold][-1]} -->", flush=True)
        if seed == 0:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model.onnx")
                export(Job(model, task, path, Options()))
                print(f"<!-- the file at {WRITTEN:g}: {accuracy.score(task, OnnxFile(path)).value:.2%} -->", flush=True)
    print("| threshold | accuracy | mean steps | largest number |\n|---|---|---|---|")
    for threshold, rows in found.items():
        values, means, largest = zip(*rows, strict=True)
        spread = f"{statistics.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"
        steps = f"{statistics.mean(means):.2f} ({min(means):.2f} to {max(means):.2f})"
        print(f"| {threshold:g} | {spread} | {steps} | {max(largest)} |")


if __name__ == "__main__":
    main()

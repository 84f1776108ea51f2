"""A task's metric while a model that is rounded by second order is trained in its few bits: before, after, averaged.

    python benchmarks/learned_rounding.py --task samples/speaker_encoder/task.py --ratio 0.125 --round-to 32 \
        --bits 5.1 --distill-loss cosine --hidden lstm --max-batches 60 --out runs/learned --file-bytes 750000

One training gives all rows: the weights that it starts from (nothing learned), the last ones and their mean after each
epoch, and the ones that the batches which are held back choose. Beside each stand the validation metric and the one of
the task, which decides nothing. With `--file-bytes` the chosen model is exported in mixed bits, a file for each size
and each of `--quantize-for`, and the files are measured. With `--epochs 0` nothing is trained: units go, the rest is
refitted and rounded by second order.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import compressor
from compressor.errors import CompressorError
from compressor.formats import Job
from compressor.measure import accuracy
from compressor.methods.base import Context, State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.progress import Silent
from compressor.runtimes.forward import Fixed
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.forwards import TorchForward
from compressor.task.view import TaskView
from exporters.onnx import Options, export

if TYPE_CHECKING:
    from torch import nn


class Told(TaskView):
    """A task that tells its metric whenever its validation metric is asked for."""

    def validate(self, forward: Any) -> float:
        value = accuracy.score(self.task, forward, validation=True).value
        told(f"validation {value:.5f}, task {accuracy.score(self, forward).value:.5f}")
        return value


def told(text: str) -> None:
    print(f"{time.process_time():7.0f} s  {text}", flush=True)


def main() -> None:
    """Remove units, train in few bits, export."""
    options = arguments()
    task = Told(compressor.load_task(options.task))
    original = task.model().eval()
    generator = torch.Generator().manual_seed(options.seed)
    context = Context(task, original, torch.device("cpu"), generator, Silent())
    state = State(original)
    if options.ratio:
        state = Magnitude(prune="units", ratio=options.ratio, round_to=options.round_to).apply(state, context).state
        told("units removed and refitted")
        task.validate(TorchForward(state.model, context.device))
    if options.epochs:
        result = training(options).apply(state, context)
        state = result.state
        for row in result.history:
            told(", ".join(f"{name} {value:.5f}" for name, value in row.items()))
        told("; ".join(result.notes))
    for target in options.quantize_for:
        for size in options.file_bytes:
            exported(state.model, task, options, target, size)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ratio", type=float, default=0.0, help="of the units of each layer that are removed")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--quantize", default="mixed")
    parser.add_argument("--bits", type=float)
    parser.add_argument("--start", default="second_order")
    parser.add_argument("--keep", nargs="*", default=[], help="globs of parameters that stay float")
    parser.add_argument("--block", type=int, default=32, help="of the file: weights of a row with a common scale")
    parser.add_argument("--epochs", type=int, default=2, help="0: nothing is trained")
    parser.add_argument("--max-batches", type=int)
    parser.add_argument("--hold-back", type=int, default=6)
    parser.add_argument("--average-last", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--distill-loss", default="kl")
    parser.add_argument("--distill-weight", type=float, default=1.0)
    parser.add_argument("--hidden", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file-bytes", type=int, nargs="*", default=[])
    parser.add_argument("--quantize-for", nargs="+", default=["cpu"])
    parser.add_argument("--samples", type=int, default=64, help="calibration sequences of the export")
    return parser.parse_args()


def training(options: argparse.Namespace) -> Retrain:
    return Retrain(
        epochs=options.epochs,
        max_batches=options.max_batches,
        lr=options.lr,
        schedule="cosine",
        warmup=0.05,
        keep_best=True,
        distill=True,
        distill_loss=options.distill_loss,
        distill_weight=options.distill_weight,
        distill_hidden=tuple(options.hidden),
        hold_back=options.hold_back,
        average_last=options.average_last,
        quantize=options.quantize,
        bits=options.bits,
        learn_steps=True,
        start=options.start,
        keep_float=tuple(options.keep),
    )


def exported(model: nn.Module, task: Told, options: argparse.Namespace, target: str, file_bytes: int) -> None:
    """Write a file of at most so many bytes, and measure it."""
    rounding = {
        "file_bytes": file_bytes,
        "max_error": 1.0,
        "keep_float": options.keep,
        "block": options.block,
        "quantize_for": target,
        "calibration_samples": options.samples,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{target}-{file_bytes}.onnx"
    try:
        artifact = export(Job(model, task, path, Options(precision="mixed", rounding=rounding)))
    except CompressorError as error:
        return told(f"{target}, {file_bytes:,} bytes: {error}")
    value = accuracy.score(task, Fixed(OnnxFile(path), task)).value
    bits = ", ".join(f"{matrix.name} {matrix.form}" for matrix in artifact.quantization.matrices)
    told(f"{target}: {artifact.bytes:,} bytes, task {value:.5f}; {bits}")
    return None


if __name__ == "__main__":
    main()

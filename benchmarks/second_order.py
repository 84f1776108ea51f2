"""A task's metric with the weights of all products in few bits: to the nearest, and by second order.

    python benchmarks/second_order.py --task samples/speaker_encoder/task.py [--bits 8 5 4 3] [--samples 384]
        [--keep lstm.weight_ih_l0 ...]

Weights only, nothing is trained; 8 bits have a scale for each row, fewer bits one for each block of 32 weights. Tables
stay float. The metric is that of the PyTorch model that holds the rounded weights, so it is the same for every file
that stores them.
"""

from __future__ import annotations

import argparse
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

import compressor
from compressor.measure import accuracy
from compressor.nn.integers import rows_to_nearest
from compressor.surgery.second_order.solver import second_order
from compressor.surgery.second_order.table import one_by_one
from exporters.quantization import calibration

if TYPE_CHECKING:
    from compressor.nn.integers import Floats, Rows
    from compressor.surgery.second_order.observe import Operand
    from compressor.surgery.second_order.solver import Doubles

BLOCK = 32


def main() -> None:
    """Round, score, print one line for each number of bits and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 5, 4, 3])
    parser.add_argument("--samples", type=int, default=384)
    parser.add_argument("--keep", nargs="*", default=[], help="globs of parameters that stay float")
    options = parser.parse_args()
    task = compressor.load_task(options.task)
    model = task.model().eval()
    batches = calibration.calibration(task, options.samples, 0, real=False).seen
    print(f"float: {accuracy.score(task, model).value:.5f}", flush=True)
    for bits in options.bits:
        for method in ("nearest", "second_order"):

            def rounded(operand: Operand, weight: Floats, moment: Doubles) -> Rows | None:
                if any(fnmatchcase(operand.parameter, pattern) for pattern in options.keep):
                    return None
                block = weight.shape[1] if bits == 8 else BLOCK  # noqa: B023 called within this turn
                if method == "nearest":  # noqa: B023
                    return rows_to_nearest(weight, bits, block)  # noqa: B023
                return second_order(weight, moment, bits, block)  # noqa: B023

            begun = time.process_time()
            copied = one_by_one(model, batches, rounded)
            seconds = time.process_time() - begun
            with torch.no_grad():
                value = accuracy.score(task, copied).value
            print(f"{bits} bits, {method}: {value:.5f} ({seconds:.0f} s of processor time)", flush=True)


if __name__ == "__main__":
    main()

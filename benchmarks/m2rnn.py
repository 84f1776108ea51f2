"""Whether a matrix-to-matrix recurrence tracks the group S3 at lengths that it was not trained on: prints a curve.

    python benchmarks/m2rnn.py [--layers m2rnn gru rnn_tanh] [--seeds 0 1 2] [--steps 900]

One layer of width 32 between an embedding and a readout. Training starts with two moves a sequence; every 20 steps one
more is added if the last answers are right, up to 16. A line every 150 steps: the length then, and the accuracy of the
second half of the positions of 512 new sequences of 16, 64 (four times) and 160 moves. Some ten seconds of processor
time a seed.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from compressor.nn.converted.m2rnn import M2rnnLayer
from compressor.probing.architecture import Architecture, Converted, named
from compressor.probing.network import Network
from compressor.probing.state_tracking import StateTracking
from compressor.probing.tasks import accuracy

WIDTH, BATCH, LR, WARMUP, CLIP = 32, 64, 5e-3, 50, 1.0
LENGTH, EVERY, RIGHT = 16, 20, 0.97
LINE, SCORED = 150, 512
TIMES = (1, 4, 10)
SIZES = {"heads": 2, "keys": 4, "values": 16}
FIELDS = {"input_size": WIDTH, "output_size": WIDTH, "hidden": WIDTH, **SIZES}


def layer(name: str) -> Architecture:
    """One layer, of the M2RNN with heads as wide as S3 needs."""
    if name == "m2rnn":
        return Converted.of(name, M2rnnLayer.from_fields(FIELDS).record(), 1)
    return named(name, layers=1)


def curve(name: str, seed: int, steps: int) -> None:
    """Train one, and print a line now and then."""
    torch.manual_seed(seed)
    task, drawn = StateTracking(length=LENGTH), torch.Generator().manual_seed(seed)
    network = Network(layer(name), WIDTH, task.tokens, task.classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    length, started = 2, time.process_time()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, step / WARMUP) * (0.1 if step > 0.8 * steps else 1.0)
        tokens, targets = task.draw(drawn, BATCH, length)
        outputs = network(tokens)
        loss = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        if step % EVERY == 0 and float((outputs.argmax(-1) == targets)[:, -1].float().mean()) >= RIGHT:
            length = min(LENGTH, length + 1)
        if step % LINE == 0:
            scored = torch.Generator().manual_seed(977)
            scores = [accuracy(network, task, scored, SCORED, LENGTH * times) for times in TIMES]
            cells = " | ".join(f"{score:.3f}" for score in scores)
            seconds = time.process_time() - started
            print(f"| {name} | {seed} | {step} | {length} | {cells} | {seconds:.0f} s |", flush=True)


def main() -> None:
    """All layers and seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=["m2rnn", "gru", "rnn_tanh"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lengths = " | ".join(str(LENGTH * times) for times in TIMES)
    print(f"| layer | seed | step | trained length | {lengths} | processor time |\n|---|---|---|---|---|---|---|---|")
    for name in options.layers:
        for seed in options.seeds:
            curve(name, seed, options.steps)


if __name__ == "__main__":
    main()

"""What a memory cache buys back in recall: an additive recurrence learns to look up 64 pairs, with slots and without.

    python benchmarks/memory_cache.py [--steps 1000] [--seeds 0] [--segments 0 8 4]

Every sequence has 64 pairs, each a random direction of 16 numbers (the key) with one of 4 values, one pair a position;
then 8 of the keys, whose values are asked for. Keys are new in every sequence, so a layer has to store them. Slots are
as many as hold all pairs until the last question. All layers are trained identically; prints a line for each with
the accuracy on new sequences every tenth of the steps. A segment of 0 is no cache.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn

from compressor.nn.converted.additive import AdditiveLayer

PAIRS, KEY, VALUES, ASKED = 64, 16, 4, 8
BATCH, TESTED = 16, 512
SIZES = {"heads": 2, "keys": 16, "values": 8, "hidden": 64}


def sequences(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (N, 72, 21) and the values (N, 8) that are asked for."""
    keys = torch.randn(count, PAIRS, KEY, generator=generator)
    keys = keys * (math.sqrt(KEY) / keys.norm(dim=-1, keepdim=True))
    values = torch.randint(VALUES, (count, PAIRS), generator=generator)
    pairs = torch.cat([keys, 2.0 * nn.functional.one_hot(values, VALUES), torch.zeros(count, PAIRS, 1)], -1)
    order = torch.rand(count, PAIRS, generator=generator).argsort(1)[:, :ASKED]
    asked = keys.gather(1, order.unsqueeze(-1).expand(-1, -1, KEY))
    questions = torch.cat([asked, torch.zeros(count, ASKED, VALUES), torch.ones(count, ASKED, 1)], -1)
    return torch.cat([pairs, questions], 1), values.gather(1, order)


def accuracy(model: nn.Module) -> float:
    """On new sequences, the same ones for every model."""
    x, wanted = sequences(TESTED, torch.Generator().manual_seed(2**31))
    with torch.no_grad():
        given = torch.cat([model(part)[:, -ASKED:].argmax(-1) for part in x.split(BATCH)])
    return float((given == wanted).double().mean())


def trained(slots: int, segment: int, steps: int, seed: int) -> tuple[list[float], int]:
    """The accuracies every tenth of the steps, and the bytes of state of a layer that learned that long."""
    torch.manual_seed(seed)
    layer = AdditiveLayer(KEY + VALUES + 1, 32, **SIZES, forget=False, memory_cache=slots, cache_segment=segment)
    model, generator = nn.Sequential(layer, nn.Linear(32, VALUES)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.1)
    curve = []
    for step in range(1, steps + 1):
        x, wanted = sequences(BATCH, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x)[:, -ASKED:].flatten(0, 1), wanted.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            curve.append(accuracy(model.eval()))
            print(f"  step {step}: {curve[-1]:.3f}", flush=True)
            model.train()
    return curve, sum(4 * value.numel() for _, value in layer.initial_states())


def main() -> None:
    """Train all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--segments", nargs="+", type=int, default=[0, 8, 4])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for segment in options.segments:
        slots = (PAIRS + ASKED) // segment if segment else 0
        for seed in options.seeds:
            begun = time.process_time()
            curve, size = trained(slots, segment or 16, options.steps, seed)
            what = f"{slots} slots of {segment}" if slots else "no cache"
            shown = " ".join(f"{value:.3f}" for value in curve)
            print(f"{what}, seed {seed}: {shown}; {size:,} B of state, {time.process_time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()

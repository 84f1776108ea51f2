"""What a memory cache buys back in recall: layers with running sums learn to look up 64 pairs, with slots and without.

    python benchmarks/memory_cache.py [--rows additive additive-72x1 ...] [--steps 1500] [--seeds 0]

Every sequence has 64 pairs, each a random direction of 16 numbers (the key) with one of 4 values, one pair a position;
then 8 of the keys, whose values are asked for. Keys are new in every sequence, so a layer has to store them. A row is a
layer and its cache, `72x1` for 72 slots of one position: as many as hold all pairs until the last question. All are
trained identically; prints a line for each with the accuracy on new sequences every tenth of the steps.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.converted.additive import AdditiveLayer
from compressor.nn.converted.lssl import LsslLayer

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS, KEY, VALUES, ASKED = 64, 16, 4, 8
INPUT, WIDTH, UNITS = KEY + VALUES + 1, 32, 64
BATCH, TESTED = 16, 512
LR = 5e-3


class Attending(nn.Module):
    """An Aaren, and relu units behind it as the other layers have them."""

    def __init__(self, heads: int, values: int, **cache: int) -> None:
        super().__init__()
        sizes = {"query_width": INPUT, "input_width": INPUT, "head_width": KEY, "value_head_width": values}
        self.attention = AarenAttention(heads, **sizes, output_width=UNITS, batch_first=True, **cache)
        self.readout = nn.Linear(UNITS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, I) -> (B, T, W)."""
        output: Tensor = self.readout(torch.relu(self.attention(x, x, x)[0]))
        return output

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Name and value of each state."""
        return list(zip(self.attention.state_names, self.attention.initial_state(1), strict=True))


def additive(**sizes: int) -> AdditiveLayer:
    """Averages of which nothing fades."""
    return AdditiveLayer(INPUT, WIDTH, hidden=UNITS, forget=False, **sizes)


def lssl(**sizes: int) -> LsslLayer:
    """Damped oscillators."""
    return LsslLayer(INPUT, WIDTH, hidden=UNITS, **sizes)


EACH, TWO, FOUR = ({"memory_cache": (PAIRS + ASKED) // size, "cache_segment": size} for size in (1, 2, 4))
ROWS: dict[str, tuple[Callable[..., Any], dict[str, int]]] = {
    "additive": (additive, {"heads": 2, "keys": 16, "values": 8}),
    "additive-wide": (additive, {"heads": 2, "keys": 53, "values": 16}),
    "additive-72x1": (additive, {"heads": 1, "keys": 1, "values": 8, **EACH}),
    "additive-36x2": (additive, {"heads": 2, "keys": 4, "values": 8, **TWO}),
    "additive-18x4": (additive, {"heads": 2, "keys": 16, "values": 8, **FOUR}),
    "aaren": (Attending, {"heads": 1, "values": 8}),
    "aaren-wide": (Attending, {"heads": 106, "values": 16}),
    "aaren-72x1": (Attending, {"heads": 1, "values": 8, **EACH}),
    "lssl": (lssl, {"projection": 8, "oscillators": 2}),
    "lssl-wide": (lssl, {"projection": 64, "oscillators": 27}),
    "lssl-72x1": (lssl, {"projection": 8, "oscillators": 2, **EACH}),
}
"""Row -> what builds its layer, and of which sizes. `wide`: about the bytes of state of `72x1`, without a cache."""


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


def trained(row: str, steps: int, seed: int) -> tuple[list[float], int]:
    """The accuracies every tenth of the steps, and the bytes of state of a layer that learned that long."""
    torch.manual_seed(seed)
    build, sizes = ROWS[row]
    layer = build(**sizes)
    model, generator = nn.Sequential(layer, nn.Linear(WIDTH, VALUES)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
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
            model.train()
    return curve, sum(4 * value.numel() for _, value in layer.initial_states())


def main() -> None:
    """Train all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for row in options.rows:
        for seed in options.seeds:
            begun = time.process_time()
            curve, size = trained(row, options.steps, seed)
            shown = " ".join(f"{value:.3f}" for value in curve)
            print(f"{row}, seed {seed}: {shown}; {size:,} B of state, {time.process_time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()

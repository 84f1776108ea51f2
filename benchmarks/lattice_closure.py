"""How the kernels of lattice pruning grow with the number of units, and the closure beside that of networkx.

    python benchmarks/lattice_closure.py [--sizes 256 512 1024 2048 4096] [--runs 3] [--rounds 9] [--threads 1]
        [--device cpu] [--max-seconds 60]

Binary kernels work on G(n, p) with two edges a unit, where components, covers and heights are not trivial; `dense` ones
on half of all the edges; fuzzy ones on uniform degrees. Times are medians of `--runs`; the exponent is that between the
last two sizes. A kernel is left out (-) where eight times its time at half of the size is more than `--max-seconds`.
networkx (one thread) runs at sizes where it is bearable, interleaved with ours in random order within one process.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import time
from typing import TYPE_CHECKING

import networkx as nx
import torch
from torch import Tensor

from compressor.measure.statistics import fewest_for_median, speed_up
from compressor.nn.lattice.bits import Bits, transitive_closure
from compressor.nn.lattice.centrality import betweenness, closeness
from compressor.nn.lattice.fuzzy import fuzzy_order, max_min_closure
from compressor.nn.lattice.order import Order, closure_order, reachability_order

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKX_DENSE = 256
"""The most units at which networkx is bearable with half of all edges."""


def sparse(size: int, device: str) -> Tensor:
    """Two edges a unit, on average."""
    return torch.rand(size, size, device=device) < 2 / size


def dense(size: int, device: str) -> Tensor:
    """Half of all the edges."""
    return torch.rand(size, size, device=device) < 0.5


def degrees(size: int, device: str) -> Tensor:
    """Uniform in 0..1."""
    return torch.rand(size, size, device=device)


def everything(order: Order) -> None:
    """All that an order tells and that takes time."""
    for name in ("covers", "heights", "irreducible"):
        getattr(order, name)


KERNELS: dict[str, tuple[Callable[[int, str], Tensor], Callable[[Tensor], object]]] = {
    "pack": (sparse, Bits.pack),
    "transitive closure, packed and unpacked": (sparse, lambda a: transitive_closure(Bits.pack(a)).unpack()),
    "the same, dense": (dense, lambda a: transitive_closure(Bits.pack(a)).unpack()),
    "reachability order": (sparse, lambda a: everything(reachability_order(Bits.pack(a)))),
    "closure order": (sparse, lambda a: everything(closure_order(Bits.pack(a)))),
    "closure order, dense": (dense, lambda a: everything(closure_order(Bits.pack(a)))),
    "max-min closure": (degrees, max_min_closure),
    "fuzzy order": (degrees, fuzzy_order),
    "closeness, dense": (dense, closeness),
    "betweenness, dense": (dense, betweenness),
}


def seconds(action: Callable[[], object], device: str) -> float:
    """Wall time of one call, the device's work included."""
    gc.collect()
    start = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_seconds(name: str, size: int, options: argparse.Namespace) -> float:
    """Of `options.runs` calls, each on a new matrix."""
    draw, kernel = KERNELS[name]
    times = []
    for _ in range(options.runs):
        matrix = draw(size, options.device)
        times.append(seconds(lambda matrix=matrix: kernel(matrix), options.device))
    return statistics.median(times)


def growth(name: str, options: argparse.Namespace) -> list[float | None]:
    """Median seconds at each size; None from where it would take too long."""
    times: list[float | None] = []
    for size in options.sizes:
        before = times[-1] if times else 0.0
        late = before is None or (times and before * (size / options.sizes[len(times) - 1]) ** 3 > options.max_seconds)
        times.append(None if late else median_seconds(name, size, options))
    return times


def exponent(sizes: list[int], times: list[float | None]) -> str:
    """The x of n^x between the last two sizes that were timed."""
    known = [(size, value) for size, value in zip(sizes, times, strict=True) if value is not None][-2:]
    if len(known) < 2:
        return "-"
    (small, first), (large, second) = known
    return f"n^{math.log(second / first) / math.log(large / small):.1f}"


def beside_networkx(size: int, kind: str, options: argparse.Namespace) -> str:
    """A row of the comparison: the reflexive closure of one graph, from its matrix or its networkx graph."""
    adjacency = (sparse if kind == "two a unit" else dense)(size, options.device)
    graph = nx.from_numpy_array(adjacency.cpu().numpy(), create_using=nx.DiGraph)
    actions = {
        "networkx": lambda: nx.transitive_closure(graph, reflexive=True),
        "ours": lambda: transitive_closure(Bits.pack(adjacency)).unpack(),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(options.rounds):
        for name in random.sample(list(actions), len(actions)):
            times[name].append(seconds(actions[name], options.device))
    faster = speed_up(times["networkx"], times["ours"])
    theirs, ours = (statistics.median(times[name]) * 1000 for name in ("networkx", "ours"))
    interval = f"{faster.interval.low:.1f} to {faster.interval.high:.1f}"
    return f"| {size} | {kind} | {theirs:.1f} | {ours:.2f} | {faster.ratio:.1f} | {interval} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9, help=f"with networkx, at least {fewest_for_median()}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--networkx", type=int, default=1024, metavar="UNITS", help="most units beside networkx")
    parser.add_argument("--no-kernels", action="store_true", help="the comparison with networkx alone")
    options = parser.parse_args()
    options.sizes.sort()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    for name in KERNELS:  # set-up of torch itself
        median_seconds(name, 64, options)
    print(f"Milliseconds, medians of {options.runs}; {options.device}, {options.threads} thread(s).\n")
    print("| kernel | " + " | ".join(f"n = {size}" for size in options.sizes) + " | growth |")
    print("|---" * (len(options.sizes) + 2) + "|")
    for name in () if options.no_kernels else KERNELS:
        times = growth(name, options)
        cells = ["-" if value is None else f"{value * 1000:.4g}" for value in times]
        print(f"| {name} | " + " | ".join(cells) + f" | {exponent(options.sizes, times)} |", flush=True)
    print("\n| n | edges | networkx ms | ours ms | times as fast | 95 % interval |\n|---|---|---|---|---|---|")
    for kind, largest in (("two a unit", options.networkx), ("half of all", NETWORKX_DENSE)):
        for size in options.sizes:
            if size <= largest:
                print(beside_networkx(size, kind, options), flush=True)


if __name__ == "__main__":
    main()

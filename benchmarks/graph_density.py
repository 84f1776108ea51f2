"""Do size and time of a network on a random graph follow its edges? Beside its masked form, all files interleaved.

    python benchmarks/graph_density.py [--cell gru] [--nodes 30] [--units 8] [--neighbours 2 4 8 16]

The masked form is that of arXiv 2407.20601: it keeps the block of every two layers that an edge connects whole and
multiplies its zeros, and every skip pair is a whole recurrent layer of its own. Beside it `skips: layers` and
`skips: inputs`. Weights are random: speed does not depend on them. Prints a Markdown table.
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
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.testing import RandomTask, normal
from exporters import onnx

if TYPE_CHECKING:
    from compressor.nn.recurrent.graph_layout import Skips

TIMED = {0: "batch", 1: "time"}
INPUT, STEPS = 32, 50


class Outputs(nn.Module):
    """A stack of which only the outputs are wanted."""

    def __init__(self, stack: GraphRecurrent) -> None:
        """Keep it."""
        super().__init__()
        self.stack = stack

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, H)."""
        return self.stack(features)[0]


def filled(graph: LayeredGraph) -> LayeredGraph:
    """The same layers with every edge between two layers that any edge connects: what a mask is laid over."""
    order = {node: place for place, node in enumerate(node for nodes in graph.layers for node in nodes)}
    edges = [
        (order[source], order[target])
        for low, high in graph.pairs
        for source in graph.layers[low]
        for target in graph.layers[high]
    ]
    return LayeredGraph(graph.nodes, tuple(edges))


def forms(graph: LayeredGraph, options: argparse.Namespace) -> list[Outputs]:
    """Masked, `layers` and `inputs`."""
    kinds: list[tuple[LayeredGraph, Skips]] = [(filled(graph), "full_layers"), (graph, "layers"), (graph, "inputs")]
    return [
        Outputs(GraphRecurrent(options.cell, INPUT, form, options.units, skips=skips, batch_first=True)).eval()
        for form, skips in kinds
    ]


def row(neighbours: int, options: argparse.Namespace) -> str:
    """All forms of one graph."""
    graph = watts_strogatz(options.nodes, neighbours, 1.0, 0)
    task = RandomTask({"features": TIMED}, {"states": TIMED}, normal(INPUT), length=STEPS, max_length=2 * STEPS)
    models = forms(graph, options)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.onnx" for index in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            onnx.export(Job(model, task, path, onnx.Options(format="onnx")))
        sizes = [path.stat().st_size / 1024 for path in paths]
        times, faster = latency.compare(
            paths, [task.example(1, STEPS)] * 3, batch=1, length=STEPS, rounds=options.rounds, max_seconds=60
        )
    density = 2 * len(graph.edges) / (graph.nodes * (graph.nodes - 1))
    cells = [str(len(model.stack.all_layers)) for model in models]
    cells += [f"{size:.0f}" for size in sizes]
    cells += [f"{time.p50:.2f}" for time in times]
    cells += [f"{part.ratio:.2f} [{part.interval.low:.2f}, {part.interval.high:.2f}]" for part in faster]
    return f"| {neighbours} | {density:.2f} | {' | '.join(cells)} |"


def main() -> None:
    """Build, export, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=["rnn_tanh", "gru", "lstm"], default="gru")
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{options.cell}, {options.nodes} nodes of {options.units} units, {STEPS} steps, batch 1, 1 thread\n")
    names = ("masked", "layers", "inputs")
    header = [f"{what}, {name}" for what in ("recurrent nodes", "KiB", "ms") for name in names]
    header += [f"{name}, times as fast as masked" for name in names[1:]]
    print(f"| neighbours | density | {' | '.join(header)} |")
    print("|---" * (len(header) + 2) + "|")
    for neighbours in options.neighbours:
        print(row(neighbours, options), flush=True)


if __name__ == "__main__":
    main()

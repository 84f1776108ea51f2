"""Finds the iterations of Python loops in two traces of one model, which differ in length alone.

The operations of a loop's iterations stand one behind the other and look the same but for integers, so the loop is a
run of equal signatures with a period (`repetitions`), and it is a loop over time if the longer trace has more
repetitions. From two neighbouring iterations follows what each argument is (`relations`): an invariant, an operation of
the same or of an earlier iteration, an integer a * i + b, or what another loop gives in iteration a * i + b. Every
iteration has to fit (`iterations`); those at the start which do not (`if t == 0`) stay outside.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from exporters.loops.iterations import build
from exporters.loops.operations import CONSTANT, Op, leaves, map_tree, used
from exporters.loops.relations import Loop, Same, Where
from exporters.loops.repetitions import REPEATS, growing_runs

if TYPE_CHECKING:
    from exporters.loops.graph import Graph

_PHASES = 64
"""Of longer iterations only one beginning is tried."""


def find(short: Graph, long: Graph) -> tuple[list[tuple[Loop, Loop]], Where, Where]:
    """The loops of both traces in order, and where each operation of them is."""
    sequences = [_looked_at(graph) for graph in (short, long)]
    signatures: dict[Any, int] = {}
    words = [[signatures.setdefault(_signature(op), len(signatures)) for op in ops] for ops in sequences]
    loops: list[tuple[Loop, Loop]] = []
    where: tuple[Where, Where] = ({}, {})
    for run in sorted(growing_runs(*words), key=lambda run: run.starts[1]):
        parts = [ops[start:end] for ops, start, end in zip(sequences, run.starts, run.ends, strict=True)]
        shift = run.shift
        while (pair := _first_loop((short, long), parts, run.period, shift, where, len(loops))) is not None:
            for side, loop in enumerate(pair):
                for place, results in enumerate(loop.instances):
                    where[side].update({op: (loop.index, place, i) for i, op in enumerate(results) if op is not None})
                last = max(place for place, op in enumerate(parts[side]) if op in where[side])
                parts[side] = parts[side][last + 1 :]  # where the same layers run over something else
            loops.append(pair)
            shift = 0
    return loops, *where


def _looked_at(graph: Graph) -> list[Op]:
    """Operations on tensors, and those that make several tensors which differ in an integer, as `full(B, t)`."""
    made = Counter(_signature(op) for op in graph.ops if not op.is_size and not _reads_tensors(op))
    return [op for op in graph.ops if not op.is_size and (_reads_tensors(op) or made[_signature(op)] >= REPEATS)]


def _reads_tensors(op: Op) -> bool:
    return any(isinstance(source.value, (Tensor, list, tuple)) for source in used(op))


def _first_loop(
    graphs: tuple[Graph, Graph],
    parts: list[list[Op]],
    period: int,
    shift: int,
    where: tuple[Where, Where],
    index: int,
) -> tuple[Loop, Loop] | None:
    """The first loop in a run, with that beginning of its iterations which makes most of them and reads least back."""
    best: tuple[Any, Loop, Loop] | None = None
    for phase in range(period if period <= _PHASES else 1):
        starts = ((phase - shift) % period, phase)
        one, other = (
            build(graph, ops[start:], period, places, index)
            for graph, ops, start, places in zip(graphs, parts, starts, where, strict=True)
        )
        if one is None or other is None:
            continue
        rank = (other.count, -_lags(other), -phase)
        if best is None or rank > best[0]:
            best = rank, one, other
    return None if best is None else best[1:]


def _signature(op: Op) -> Any:
    def word(leaf: Any) -> Any:
        if isinstance(leaf, Op):
            return leaf.name if leaf.target == CONSTANT else "op"
        return "int" if type(leaf) is int else repr(leaf)

    return op.target, map_tree(op.args, word), tuple(sorted(map_tree(op.kwargs, word).items()))


def _lags(loop: Loop) -> int:
    return sum(isinstance(leaf, Same) and leaf.lag > 0 for leaf in leaves(loop.arguments))

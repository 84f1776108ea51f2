"""Which recurrent layers a stack on a graph consists of: what each reads, and which nodes it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from compressor.errors import UsageError
from compressor.gates import BY_MODE
from compressor.nn.graphs.layered import GraphRecord
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.nn.graphs.layered import LayeredGraph

CellWord = Literal["rnn_tanh", "rnn_relu", "gru", "lstm"]
"""The mode of a cell in small letters, as records and recipes have it."""
Skips = Literal["inputs", "layers", "full_layers"]
"""How an edge over a layer is laid out; see `GraphRecurrent`."""


_MOST_UNITS_PER_NODE = 1 << 12


class GraphRecurrentRecord(LayerRecord):
    """What a `GraphRecurrent` is built from."""

    cell: CellWord
    input_size: Size
    graph: GraphRecord
    units_per_node: Annotated[int, Field(gt=0, le=_MOST_UNITS_PER_NODE)]
    batch_first: bool
    skips: Skips
    repeated_rows: bool


def check_arguments(cell: str, input_size: int, units_per_node: int) -> None:
    """Raise a `UsageError` for arguments of a `GraphRecurrent` that are out of range."""
    if cell not in get_args(CellWord):
        raise UsageError(f"there is no cell `{cell}`", hint=f"cells: {', '.join(get_args(CellWord))}")
    if input_size < 1 or not 1 <= units_per_node <= _MOST_UNITS_PER_NODE:
        raise UsageError(
            f"input_size is {input_size} and units_per_node {units_per_node}",
            hint=f"both have to be at least 1, and units_per_node at most {_MOST_UNITS_PER_NODE}",
        )


@dataclass(frozen=True)
class Connection:
    """What one recurrent layer of the stack reads, and which nodes it computes."""

    sources: tuple[int, ...]
    """The layers of the graph that it reads, side by side; none if it reads the input of the stack."""
    target: int
    """The layer of the graph whose output it makes or adds to."""
    reads: tuple[int, ...]
    """Places in the source layers, side by side, of the nodes that it reads; empty if it reads the input."""
    targets: tuple[int, ...]
    """Places in the target layer of the nodes that it computes."""
    mask: Tensor
    """(len(targets), len(reads)), True = edge."""
    extra: bool = False
    """Whether it is an extra layer, whose output is added to that of another."""


def connections(graph: LayeredGraph, *, skips: Skips = "inputs") -> list[Connection]:
    """The recurrent layers of a stack on `graph`: one for each layer, and then the extra ones of skip pairs."""
    blocks = graph.blocks()
    first = tuple(range(len(graph.layers[0])))
    layers = [Connection((), 0, (), first, torch.zeros(len(first), 0, dtype=torch.bool))]
    for target in range(1, len(graph.layers)):
        sources = tuple(source for source, end in graph.pairs if end == target)
        layers.append(_connection(blocks, sources if skips == "inputs" else (target - 1,), target))
    for source, target in () if skips == "inputs" else graph.skip_pairs:
        connection = _connection(blocks, (source,), target, extra=True, whole=skips == "full_layers")
        if skips == "full_layers" or not _ends_unread(graph, connection):
            layers.append(connection)
    return layers


def _connection(
    blocks: Mapping[tuple[int, int], Tensor],
    sources: tuple[int, ...],
    target: int,
    *,
    extra: bool = False,
    whole: bool = True,
) -> Connection:
    """What reads these layers; it computes all nodes of the target layer (`whole`) or those with an edge."""
    block = torch.cat([blocks[source, target] for source in sources], 1)  # (targets, nodes of all sources)
    reads = block.any(0).nonzero().flatten()
    targets = torch.arange(len(block)) if whole else block.any(1).nonzero().flatten()
    mask = block[targets][:, reads]
    return Connection(sources, target, tuple(reads.tolist()), tuple(targets.tolist()), mask, extra)


def _ends_unread(graph: LayeredGraph, connection: Connection) -> bool:
    """Whether no layer reads what an extra layer adds: all its nodes are without successor, below the last layer."""
    if connection.target == len(graph.layers) - 1:
        return False
    read = {source for source, _ in graph.edges}
    nodes = graph.layers[connection.target]
    return not any(nodes[place] in read for place in connection.targets)


def parameter_count(
    graph: LayeredGraph, cell: CellWord, input_size: int, units_per_node: int, *, skips: Skips = "inputs"
) -> int:
    """Number of parameters of a `GraphRecurrent`, those that `masks` hold at zero included.

    The sum over its recurrent layers of G * H * (I + H + 2), with G gates, H = units_per_node * computed nodes, and
    I = units_per_node * nodes read (`input_size` in layer 0).
    """
    total = 0
    for connection in connections(graph, skips=skips):
        hidden = units_per_node * len(connection.targets)
        inputs = units_per_node * len(connection.reads) if connection.sources else input_size
        total += BY_MODE[cell.upper()].count * hidden * (inputs + hidden + 2)
    return total

"""A stack of recurrent layers laid out on a random graph: sparse from the start, stored and computed densely.

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), "randomly structured" networks.
The network of the paper stores every layer whole and multiplies its weights by masks in each call. Here a layer reads
only the nodes that have an edge into it, and what zeros remain between them are kept by `masks`, as pruned weights are:
set to zero once, and held there by training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.graphs.layered import GraphRecord, LayeredGraph
from compressor.nn.masks import prune_
from compressor.nn.record import LayerRecord, Size, allocate, parse
from compressor.nn.recurrent.gates import GATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Cell = Literal["rnn_tanh", "rnn_relu", "gru", "lstm"]
Skips = Literal["inputs", "layers", "full_layers"]
"""How an edge over a layer is laid out; see `GraphRecurrent`."""
State = list[Tensor] | tuple[list[Tensor], list[Tensor]]
"""h, or (h, c) for an LSTM: one (1, B, H_i) for each recurrent layer, the layers first and then the skips."""

_MOST_UNITS_PER_NODE = 1 << 12
_MODULES: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn_tanh": partial(nn.RNN, nonlinearity="tanh"),
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class GraphRecurrentRecord(LayerRecord):
    """What a `GraphRecurrent` is built from."""

    cell: Cell
    input_size: Size
    graph: GraphRecord
    units_per_node: Annotated[int, Field(gt=0, le=_MOST_UNITS_PER_NODE)]
    batch_first: bool
    skips: Skips
    repeated_rows: bool


@dataclass(frozen=True)
class Connection:
    """What one recurrent layer of the stack reads, and which nodes it computes."""

    sources: tuple[int, ...]
    """The layers of the graph that it reads, side by side; none where it reads the input of the stack."""
    target: int
    """The layer of the graph whose output it makes or adds to."""
    reads: tuple[int, ...]
    """Places in the source layers, side by side, of the nodes that it reads; empty where it reads the input."""
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
    found = [Connection((), 0, (), first, torch.zeros(len(first), 0, dtype=torch.bool))]
    for target in range(1, len(graph.layers)):
        sources = tuple(source for source, end in graph.pairs if end == target)
        found.append(_connection(blocks, sources if skips == "inputs" else (target - 1,), target))
    for source, target in () if skips == "inputs" else graph.skip_pairs:
        connection = _connection(blocks, (source,), target, extra=True, whole=skips == "full_layers")
        if skips == "full_layers" or not _ends_unread(graph, connection):
            found.append(connection)
    return found


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
    """Whether nobody reads what an extra layer adds: all its nodes are without successor, below the last layer."""
    if connection.target == len(graph.layers) - 1:
        return False
    read = {source for source, _ in graph.edges}
    nodes = graph.layers[connection.target]
    return not any(nodes[place] in read for place in connection.targets)


def parameter_count(
    graph: LayeredGraph, cell: Cell, input_size: int, units_per_node: int, *, skips: Skips = "inputs"
) -> int:
    """Number of parameters of a `GraphRecurrent`, those that `masks` hold at zero included.

    The sum over its recurrent layers of G * H * (I + H + 2), with G gates, H = units_per_node * computed nodes, and
    I = units_per_node * nodes read (`input_size` in layer 0).
    """
    total = 0
    for connection in connections(graph, skips=skips):
        hidden = units_per_node * len(connection.targets)
        inputs = units_per_node * len(connection.reads) if connection.sources else input_size
        total += GATES[cell.upper()] * hidden * (inputs + hidden + 2)
    return total


class GraphLayer(nn.Module):
    """One recurrent layer of a stack: a native one, behind a choice of its inputs and before a place for its outputs.

    `recurrent` is a one-layer, one-direction `nn.RNN`, `nn.GRU` or `nn.LSTM`, time first.
    """

    columns: Tensor | None
    """Units (I,) of the source layers' outputs, side by side, that are read; None where all are."""
    places: Tensor | None
    """For each unit of the target layer its place in this layer's output, H where it has none; None where all have."""

    def __init__(
        self,
        cell: Cell,
        connection: Connection,
        input_size: int,
        units_per_node: int,
        widths: tuple[int, int],
        options: dict[str, Any],
    ) -> None:
        """Build it with PyTorch's initial weights.

        Args:
            cell: What kind of layer it is.
            connection: What it reads and computes.
            input_size: Features of the stack's input, which a connection without a source layer reads.
            units_per_node: Units that stand for a node.
            widths: Nodes of all source layers together (0 where there is none) and of the target layer.
            options: `device` and `dtype` of the weights.
        """
        super().__init__()
        self.connection = connection
        self._units_per_node = units_per_node
        self._widths = widths
        inputs = units_per_node * len(connection.reads) if connection.sources else input_size
        self.recurrent = _MODULES[cell](inputs, units_per_node * len(connection.targets), **options)
        self.place_indices(options["device"])

    def place_indices(self, device: torch.device | str | None) -> None:
        """Compute the buffers `columns` and `places`, which are no part of the state dict, on a device."""
        sources, targets = self._widths
        columns = places = None
        if len(self.connection.reads) < sources:
            columns = _units(torch.tensor(self.connection.reads), self._units_per_node).to(device)
        if len(self.connection.targets) < targets:
            own = _units(torch.tensor(self.connection.targets), self._units_per_node)
            places = torch.full((targets * self._units_per_node,), len(own))
            places[own] = torch.arange(len(own))
            places = places.to(device)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, sources: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        """Run over the outputs of its sources, each (T, B, units): (T, B, units of the target layer), states."""
        sequence = sources[0] if len(sources) == 1 else torch.cat(list(sources), -1)
        inputs = sequence if self.columns is None else sequence.index_select(-1, self.columns)  # (T, B, I)
        output, last = self.recurrent(inputs, state)  # (T, B, H)
        if self.places is not None:
            output = nn.functional.pad(output, (0, 1)).index_select(-1, self.places)  # a zero for units without place
        return output, last

    def mask(self, *, repeated_rows: bool) -> Tensor | None:
        """The mask (G * H, I) of `weight_ih`; None where it keeps everything."""
        block, k = self.connection.mask, self._units_per_node
        if bool(block.all()):  # the mask of layer 0 is empty
            return None
        units = block.repeat_interleave(k, 0).repeat_interleave(k, 1)  # (H, I)
        gates = GATES[self.recurrent.mode]
        return units.repeat_interleave(gates, 0) if repeated_rows else units.repeat(gates, 1)


class GraphRecurrent(nn.Module):
    """A recurrent stack with the structure of a graph, called as a one-way `nn.RNN`, `nn.GRU` or `nn.LSTM` of layers.

    Each node stands for k units and each edge for a dense k x k block of `weight_ih`. Layer 0 reads the input densely,
    layer l > 0 through the edges the nodes of lower layers; `weight_hh` is dense in every layer. The output is that of
    the last layer: nodes without successor in another layer reach it through the hidden states of their layer only.

    The units of a node are neighbours, and nodes lie in the order of `graph.layers`. `layers` and `skips` are lists of
    `GraphLayer`, `skips` in the order of `graph.skip_pairs`; a weight is called `layers.0.recurrent.weight_ih_l0`.

    What becomes of edges over a layer, from layer s <= l - 2 to layer l, is a choice:

    - `skips="inputs"`: layer l reads its sources in all lower layers side by side. One recurrent layer for each layer
      of the graph, so the time that the stack takes follows its edges.
    - `skips="layers"`: as in arXiv 2407.20601 ("randomly structured"), a recurrent layer of its own for each pair
      (s, l) reads the output of layer s, and its output is added to that of layer l, behind the non-linearity;
      whatever reads layer l reads the sum. It computes those nodes of layer l that have an edge in the pair, and is
      left out where nobody reads what it would add.
    - `skips="full_layers"`: the same, with all nodes of layer l in every extra layer, as in the paper: those without an
      edge read nothing and run on their biases and the extra layer's hidden state, so they cost parameters and add
      something to the sum that depends on the edges only through `weight_hh`.

    The code of the paper expands a mask to the gates of a GRU or LSTM row by row (0, 0, 0, 1, 1, 1, ...) although the
    weights lie gate by gate (0..H - 1, 0..H - 1, ...). `repeated_rows=True` reproduces that; with the other option,
    these are the networks of the published figures.

    States are lists of tensors (1, B, H_i), never stacked: first h of every layer, then of every extra layer, each
    what that layer itself ended with. So the state of the last layer, `h[len(layers) - 1]`, is its last output only
    where no skip ends there: a model that classifies by the last hidden state should take the last output instead.
    """

    bidirectional = False
    """It runs forward in time only."""

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        graph: LayeredGraph,
        units_per_node: int = 1,
        *,
        batch_first: bool = False,
        skips: Skips = "inputs",
        repeated_rows: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layers, with PyTorch's initial weights and zeros outside the masks.

        Args:
            cell: `rnn_tanh`, `rnn_relu`, `gru` or `lstm`.
            input_size: Number of input features, >= 1.
            graph: The structure.
            units_per_node: k, 1..4096.
            batch_first: Batches are (B, T, F) instead of (T, B, F).
            skips: What becomes of edges over a layer.
            repeated_rows: Masks of a GRU or LSTM are expanded as in the paper's code.
            device: Where the weights lie.
            dtype: Their type.

        Raises:
            UsageError: An argument is out of range.
        """
        super().__init__()
        _check_arguments(cell, input_size, units_per_node)
        self.cell = cell
        self.input_size = input_size
        self.graph = graph
        self.units_per_node = units_per_node
        self.batch_first = batch_first
        self.skip_edges = skips
        self.repeated_rows = repeated_rows
        self.layers = nn.ModuleList()
        self.skips = nn.ModuleList()
        for connection in connections(graph, skips=skips):
            source_width = sum(len(graph.layers[source]) for source in connection.sources)
            widths = (source_width, len(graph.layers[connection.target]))
            layer = GraphLayer(cell, connection, input_size, units_per_node, widths, {"device": device, "dtype": dtype})
            (self.skips if connection.extra else self.layers).append(layer)
        if torch.device(device or torch.get_default_device()).type != "meta":  # masks take memory, of which a record
            apply_masks(self)  # from a stranger must not ask for more than there is

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GraphRecurrent:
        """The stack that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(GraphRecurrentRecord, record).model_dump()
        found["graph"] = LayeredGraph.from_record(found["graph"])
        module = allocate(cls(**found, device="meta", dtype=dtype), device)
        for layer in module.all_layers:
            layer.place_indices(next(layer.parameters()).device)
        return module

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a stack of this structure."""
        return {
            "cell": self.cell,
            "input_size": self.input_size,
            "graph": self.graph.record(),
            "units_per_node": self.units_per_node,
            "batch_first": self.batch_first,
            "skips": self.skip_edges,
            "repeated_rows": self.repeated_rows,
        }

    @property
    def hidden_size(self) -> int:
        """Number of output features: the units of the last layer."""
        return self.units_per_node * len(self.graph.layers[-1])

    @property
    def num_layers(self) -> int:
        """Number of layers, the extra ones of skip pairs not counted."""
        return len(self.layers)

    @property
    def all_layers(self) -> list[GraphLayer]:
        """All recurrent layers in the order of the states: `layers`, then `skips`."""
        return [layer for layer in (*self.layers, *self.skips) if isinstance(layer, GraphLayer)]

    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> boolean mask of its shape, True = kept, for every parameter that has to hold zeros."""
        names = [f"layers.{i}" for i in range(len(self.layers))] + [f"skips.{i}" for i in range(len(self.skips))]
        masks = [layer.mask(repeated_rows=self.repeated_rows) for layer in self.all_layers]
        return {
            f"{name}.recurrent.weight_ih_l0": mask for name, mask in zip(names, masks, strict=True) if mask is not None
        }

    def reset_parameters(self) -> None:
        """Draw all parameters from U(-1/sqrt(H), 1/sqrt(H)), with H units in each layer, and apply the masks."""
        for layer in self.all_layers:
            layer.recurrent.reset_parameters()
        apply_masks(self)

    def flatten_parameters(self) -> None:
        """Lay the weights out as cuDNN wants them."""
        for layer in self.all_layers:
            layer.recurrent.flatten_parameters()

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over a batch of sequences.

        Args:
            x: (T, B, F), or (B, T, F) with `batch_first`.
            state: What an earlier call gave; zeros by default.

        Returns:
            The output of the last layer, (T, B, hidden_size) or (B, T, hidden_size), and the last states.

        Raises:
            UsageError: The input or the state has another form.
        """
        if not isinstance(x, Tensor) or x.dim() != 3:
            form = f"a tensor of {x.dim()} axes" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise UsageError(
                f"the input is {form}, and a graph-structured layer takes a batch of sequences with 3 axes",
                hint="pad packed sequences; give a single sequence a batch axis",
            )
        layers, initial = self.all_layers, self._initial(state)
        sequence = x.transpose(0, 1) if self.batch_first else x  # (T, B, F)
        outputs: list[Tensor] = []  # of every layer so far, (T, B, units of the layer)
        last: list[Any] = [None] * len(layers)
        for index in sorted(range(len(layers)), key=lambda index: (layers[index].connection.target, index)):
            layer = layers[index]
            sources = [outputs[source] for source in layer.connection.sources] or [sequence]
            output, last[index] = layer(sources, initial[index])
            if layer.connection.extra:
                outputs[-1] = outputs[-1] + output
            else:
                outputs.append(output)
        output = outputs[-1].transpose(0, 1) if self.batch_first else outputs[-1]
        return output, self._last(last)

    def _initial(self, state: State | None) -> list[Any]:
        """The initial state of every recurrent layer as PyTorch's layers take it."""
        count = len(self.layers) + len(self.skips)
        if state is None:
            return [None] * count
        kinds: Sequence[Any] = state if self.cell == "lstm" else [state]
        expected = 2 if self.cell == "lstm" else 1
        if len(kinds) != expected or any(not _are_states(parts, count) for parts in kinds):
            pair = "a pair (h, c) of lists" if self.cell == "lstm" else "a list"
            raise UsageError(
                f"the state is not {pair} of {count} tensors (1, B, H)", hint="hand over what an earlier call gave"
            )
        return list(zip(*kinds, strict=True)) if self.cell == "lstm" else list(kinds[0])

    def _last(self, states: list[Any]) -> State:
        """The last states of all recurrent layers in the form in which they are given out."""
        if self.cell == "lstm":
            return [h for h, _ in states], [c for _, c in states]
        return states

    def extra_repr(self) -> str:
        """The structure in one line."""
        sizes = [self.units_per_node * len(nodes) for nodes in self.graph.layers]
        flags = f"batch_first={self.batch_first}, skips={self.skip_edges!r}, repeated_rows={self.repeated_rows}"
        return f"{self.cell}, {self.input_size}, {sizes}, skip_pairs={list(self.graph.skip_pairs)}, {flags}"


def apply_masks(module: nn.Module) -> None:
    """Set to zero, in place, what the masks of every `GraphRecurrent` in `module` prune."""
    for part in module.modules():
        if isinstance(part, GraphRecurrent):
            prune_(part, part.masks())


def _units(nodes: Tensor, units_per_node: int) -> Tensor:
    """The units of nodes, by their places: (N,) -> (N * k,)."""
    return (nodes[:, None] * units_per_node + torch.arange(units_per_node)).flatten()


def _are_states(parts: Any, count: int) -> bool:
    """Whether it is a sequence of that many tensors with three axes."""
    return len(parts) == count and all(isinstance(part, Tensor) and part.dim() == 3 for part in parts)


def _check_arguments(cell: str, input_size: int, units_per_node: int) -> None:
    if cell not in get_args(Cell):
        raise UsageError(f"there is no cell `{cell}`", hint=f"cells: {', '.join(get_args(Cell))}")
    if input_size < 1 or not 1 <= units_per_node <= _MOST_UNITS_PER_NODE:
        raise UsageError(
            f"input_size is {input_size} and units_per_node {units_per_node}",
            hint=f"both have to be at least 1, and units_per_node at most {_MOST_UNITS_PER_NODE}",
        )

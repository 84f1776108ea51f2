"""A stack of recurrent layers laid out on a random graph: sparse from the start, stored and computed densely.

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), "randomly structured" networks.
The network of the paper stores every layer whole and multiplies its weights by masks in each call. Here a layer reads
only the nodes that have an edge into it, and what zeros remain between them are kept by `masks`, as pruned weights are:
set to zero once, and held there by training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.masks import prune_
from compressor.nn.record import LayerRecord, RecordedLayer, allocate
from compressor.nn.recurrent.cells import CELLS
from compressor.nn.recurrent.graph_layer import GraphLayer
from compressor.nn.recurrent.graph_layout import CellWord, GraphRecurrentRecord, Skips, check_arguments, connections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions

State = list[Tensor] | tuple[list[Tensor], list[Tensor]]
"""h, or (h, c) for an LSTM: one (1, B, H_i) for each recurrent layer, the layers first and then the skips."""


class GraphRecurrent(RecordedLayer):
    """A recurrent stack with the structure of a graph, called as a one-way recurrent layer of PyTorch's.

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
      left out if no layer reads what it would add.
    - `skips="full_layers"`: the same, with all nodes of layer l in every extra layer, as in the paper: those without an
      edge read nothing and run on their biases and the extra layer's hidden state, so they cost parameters and add
      something to the sum that depends on the edges only through `weight_hh`.

    The code of the paper expands a mask to the gates of a GRU or LSTM row by row (0, 0, 0, 1, 1, 1, ...) although the
    weights lie gate by gate (0..H - 1, 0..H - 1, ...). `repeated_rows=True` reproduces that; with the other option,
    these are the networks of the published figures.

    States are lists of tensors (1, B, H_i), never stacked: first h of every layer, then of every extra layer, each
    what that layer itself ended with. So the state of the last layer, `h[len(layers) - 1]`, is its last output only
    if no skip ends there: a model that classifies by the last hidden state should take the last output instead.
    """

    record_type: ClassVar[type[LayerRecord]] = GraphRecurrentRecord

    bidirectional = False
    """It runs forward in time only."""

    def __init__(
        self,
        cell: CellWord,
        input_size: int,
        graph: LayeredGraph,
        units_per_node: int = 1,
        *,
        batch_first: bool = False,
        skips: Skips = "inputs",
        repeated_rows: bool = False,
        **factory: Unpack[FactoryOptions],
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
            **factory: See `FactoryOptions`.

        Raises:
            UsageError: An argument is out of range.
        """
        super().__init__()
        check_arguments(cell, input_size, units_per_node)
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
            layer = GraphLayer(cell, connection, input_size, units_per_node, widths, factory)
            (self.skips if connection.extra else self.layers).append(layer)
        if (
            torch.device(factory.get("device") or torch.get_default_device()).type != "meta"
        ):  # masks take memory, of which a record
            apply_masks(self)  # from a stranger must not ask for more than there is

    @classmethod
    def _built(cls, fields: GraphRecurrentRecord, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        arguments = fields.model_dump()
        graph = LayeredGraph.from_record(arguments.pop("graph"))
        module = allocate(cls(**arguments, graph=graph, device="meta", dtype=dtype), device)
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
        cell = CELLS[self.cell.upper()]
        kinds: Sequence[Any] = cell.unpack(state)
        if len(kinds) != len(cell.states) or any(not _are_states(parts, count) for parts in kinds):
            pair = "a pair (h, c) of lists" if len(cell.states) > 1 else "a list"
            raise UsageError(
                f"the state is not {pair} of {count} tensors (1, B, H)", hint="hand over what an earlier call gave"
            )
        return [cell.pack(parts) for parts in zip(*kinds, strict=True)]

    def _last(self, states: list[Any]) -> State:
        """The last states of all recurrent layers in the form in which they are given out."""
        cell = CELLS[self.cell.upper()]
        kinds = zip(*(cell.unpack(state) for state in states), strict=True)
        return cell.pack([list(kind) for kind in kinds])  # type: ignore[no-any-return]

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


def _are_states(parts: Any, count: int) -> bool:
    """Whether it is a sequence of that many tensors with three axes."""
    return len(parts) == count and all(isinstance(part, Tensor) and part.dim() == 3 for part in parts)

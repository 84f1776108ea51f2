"""What replaces a recurrent layer: a stack laid out on a graph, or a dense one of as many parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from torch.utils._pytree import tree_leaves

from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.graph_layout import parameter_count
from compressor.nn.recurrent.layers import cell_of
from compressor.nn.recurrent.stack import NoStates, RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from compressor.nn.graphs.layered import LayeredGraph
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.graph_layout import CellWord, Skips


def graph_stack(
    old: RecurrentLayer, graph: LayeredGraph, units_per_node: int, *, skips: Skips, repeated_rows: bool
) -> RecurrentStack:
    """A stack on the graph with the cell, the inputs and the outputs of `old`, from random weights."""
    stack = GraphRecurrent(
        cell_word(old),
        old.input_size,
        graph,
        units_per_node,
        batch_first=old.batch_first,
        skips=skips,
        repeated_rows=repeated_rows,
    )
    return RecurrentStack(stack, output_size(old))


def dense_stack(old: RecurrentLayer, graph: LayeredGraph, units_per_node: int, *, skips: Skips) -> RecurrentStack:
    """A dense stack of the cell and number of layers of `old`, with about as many parameters as `graph_stack` has."""
    width = units_per_node * len(graph.layers[-1])
    wanted = parameter_count(graph, cell_word(old), old.input_size, units_per_node, skips=skips)
    size = dense_size(old, wanted + _readout_parameters(width, output_size(old)))
    sizes = [[size]] * old.num_layers
    stack = UnevenRecurrent(
        old.mode, old.input_size, sizes, bias=old.bias, batch_first=old.batch_first, dropout=old.dropout
    )
    return RecurrentStack(stack, output_size(old))


def dense_size(old: RecurrentLayer, parameters: int) -> int:
    """Hidden size H >= 1 at which a dense stack comes nearest to so many parameters, the smaller one of two.

    The stack has the cell, the inputs I and the L layers of `old`, and a readout of H + 1 weights for each output
    if H is not the size of its output. In layer l it has G * H * (I_l + H + 2), with G gates, I_0 = I, I_l = H, and
    without the 2 if there are no biases.
    """
    outputs, biases = output_size(old), 2 if old.bias else 0

    def count(size: int) -> int:
        inputs = old.input_size + (old.num_layers - 1) * size
        stack = cell_of(old).gates.count * size * (inputs + old.num_layers * (size + biases))
        return stack + _readout_parameters(size, outputs)

    largest = math.isqrt(parameters) + 1  # a layer alone has more than H^2
    return min(range(1, largest + 1), key=lambda size: abs(count(size) - parameters))


def cell_word(old: RecurrentLayer) -> CellWord:
    """`rnn_tanh`, `rnn_relu`, `gru` or `lstm`."""
    return cast("CellWord", old.mode.lower())


def output_size(old: RecurrentLayer) -> int:
    """Features of an output of the layer."""
    return old.proj_size or old.hidden_size


def stack_masks(new: RecurrentStack) -> dict[str, Tensor]:
    """What the graph of a stack holds at zero: parameter name -> mask."""
    stack = new.stack
    return {f"stack.{key}": mask for key, mask in stack.masks().items()} if isinstance(stack, GraphRecurrent) else {}


def stack_structure(new: RecurrentStack) -> str:
    """The structure in one line."""
    readout = "" if new.readout is None else f", readout {new.readout.in_features} -> {new.readout.out_features}"
    return f"{new.stack.extra_repr()}{readout}"


def gives_out_states(outputs: Any) -> bool:
    """Whether a model's outputs hold states of a stack, which it does not have."""
    return any(isinstance(leaf, NoStates) for leaf in tree_leaves(outputs))


def _readout_parameters(width: int, outputs: int) -> int:
    return 0 if width == outputs else (width + 1) * outputs

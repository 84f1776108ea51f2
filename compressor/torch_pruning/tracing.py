"""Makes the recurrent layers of a model visible to a graph that follows autograd."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.nn.recurrent.layers import RECURRENT, cell_of, directions, has_own_forward, is_layer

if TYPE_CHECKING:
    from collections.abc import Iterator


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call the model as Torch-Pruning's tracing does, with every recurrent layer as one node of the graph.

    All outputs of the layer, its last states too, hang on that node, and behind it comes the layer's input: what the
    layer computes inside is not in the graph. Values are those of the model. States that a layer is given are no inputs
    of its node: a graph of inputs and outputs cannot say that they are as wide as its outputs.

    Args:
        model: In evaluation mode.
        inputs: A tensor, a tuple or list of positional arguments, or a dict of keywords.
    """
    with ExitStack() as stack:
        stack.enter_context(_padding_as_one_node())
        for module in model.modules():
            if isinstance(module, RECURRENT) and not has_own_forward(module):
                stack.enter_context(_as_one_node(module))
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


@contextmanager
def _as_one_node(module: Any) -> Iterator[None]:
    computes = module.forward

    def traced(input: Any, hx: Any = None) -> Any:  # noqa: A002 - PyTorch's name
        with torch.no_grad():
            result = computes(input, hx)
        if not is_layer(module):
            return _traced_cell(module, input, result)
        outputs, states = result
        packed = isinstance(input, PackedSequence)
        data, values = (input.data, outputs.data) if packed else (input, outputs)
        count = states[0].size(-2) if isinstance(states, tuple) else states.size(-2)
        carrier = values.new_zeros(count, values.size(-1))
        values, carrier = _one_node(data, values, carrier)
        return PackedSequence(values, *outputs[1:]) if packed else values, _traced_states(module, states, carrier)

    module.forward = traced
    try:
        yield
    finally:
        del module.forward


class _Node(torch.autograd.Function):
    """One node of the graph: its inputs are `data`'s, its outputs the values that were computed before."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise RuntimeError("this graph is for tracing; it has no gradients")


def _one_node(data: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    if not data.requires_grad:  # without a gradient there is no graph
        data = data.detach().requires_grad_()
    return _Node.apply(data, *values)  # type: ignore[no-any-return]


def _traced_cell(module: Any, data: Tensor, result: Any) -> Any:
    states = _one_node(data, *cell_of(module).unpack(result))
    return cell_of(module).pack(states)


@contextmanager
def _padding_as_one_node() -> Iterator[None]:
    """Unpacking a packed sequence slices it along time, which Torch-Pruning takes for slices of features."""
    computes = torch._VF._pad_packed_sequence

    def traced(data: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            padded, lengths = computes(data, *options)
        return _one_node(data, padded)[0], lengths

    torch._VF._pad_packed_sequence = traced  # type: ignore[assignment]
    try:
        yield
    finally:
        del torch._VF._pad_packed_sequence


def _traced_states(module: Any, states: Any, carrier: Tensor) -> Any:
    """The last states, each of which hangs on the features of `carrier` (B, D * S) that it is."""
    cell = cell_of(module)
    count = directions(module)
    size = carrier.size(-1) // count
    # Torch-Pruning reads the sizes of a split only if they are written out, and counts the nodes behind it: the factor
    # makes one for each direction.
    pieces = [piece * 0.0 for piece in carrier.split([size] * count, dim=1)] if count > 1 else [carrier * 0.0]
    traced = []
    for state in cell.unpack(states):
        if state.size(-1) != size:  # c of a layer with a projection: no output has its units
            traced.append(state)
            continue
        batched = state.dim() == 3
        layers = state if batched else state.unsqueeze(1)
        rows = torch.stack([pieces[index % count] + layers[index] for index in range(layers.size(0))])
        traced.append(rows if batched else rows.squeeze(1))
    return cell.pack(traced)

"""Makes recurrent layers come out of `torch.export` as native ONNX `RNN`, `GRU` and `LSTM` nodes.

PyTorch's exporter either unrolls these layers over time or hides their weights behind Slice and Concat. Here each
layer of a model that `native_recurrent.prepare` has prepared emits the ONNX nodes itself.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from exporters.capture import factored_recurrent
from exporters.capture.native_node import REVERSE, recurrent_node
from exporters.capture.native_recurrent import PREPARED
from exporters.capture.packed_sequence import PaddedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    Layer = RecurrentLayer | UnevenRecurrent | LowRankRecurrent
    States = Tensor | Sequence[Tensor]
    """Of all layers and directions: (L * D, B, H), or one (B, H_i) for each."""
    Outputs = tuple[Tensor, list[list[Tensor]]]
    """(T, B, D * H) or (B, T, D * H), and for every kind of state the last ones of every node."""


@contextmanager
def native_nodes() -> Iterator[None]:
    """Within the block, prepared layers emit native nodes; all other layers of the process work as always."""
    from compressor.nn.forwards import replaced_forwards
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.layers import LAYERS
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    with replaced_forwards(dict.fromkeys((*LAYERS, UnevenRecurrent, LowRankRecurrent), _dispatcher)):
        yield


def _dispatcher(original: Any) -> Any:
    def forward(self: Layer, input: Any, hx: Any = None) -> Any:  # noqa: A002 the layer's own argument name
        return _forward(self, input, hx) if hasattr(self, PREPARED) else original(self, input, hx)

    return forward


def _forward(module: Layer, layer_input: Any, hx: Any) -> tuple[Any, Any]:
    """What `module.forward` gives: the output and the last state(s), with the shapes that PyTorch documents."""
    from compressor.nn.recurrent.layers import cell_of

    packed = isinstance(layer_input, PaddedSequence)
    batched = packed or layer_input.dim() == 3
    batch_first = module.batch_first and batched and not packed
    states = _as_states(module, hx, batched)

    x = layer_input.padded if packed else layer_input if batched else layer_input.unsqueeze(1)
    x = x.transpose(0, 1) if batch_first else x  # (T, B, I)
    lengths = layer_input.node_lengths if packed else None
    output, last = _run_layers(module, x, lengths, states, batch_first)

    if packed:
        output = layer_input.with_steps(output)
    elif not batched:
        output = output.squeeze(1)
    return output, cell_of(module).pack([_join_states(parts, batched) for parts in last])


def _as_states(module: Layer, hx: Any, batched: bool) -> list[States]:
    """The initial states that were given, each (L * D, B, H) or a sequence of (B, H_i); empty if none was."""
    import torch

    from compressor.nn.recurrent.layers import cell_of

    if hx is None:
        return []
    states = cell_of(module).unpack(hx)
    if batched:
        return states
    return [s.unsqueeze(1) if isinstance(s, torch.Tensor) else [part.unsqueeze(0) for part in s] for s in states]


def _join_states(parts: list[Tensor], batched: bool) -> Any:
    """The last states of all nodes, each (D, B, H), in the form in which the layer gives them."""
    import torch

    from compressor.nn.recurrent.states import stack_states

    parts = parts if batched else [part.squeeze(1) for part in parts]
    if len({part.shape[-1] for part in parts}) > 1:
        return stack_states([row for part in parts for row in part.split(1)])
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _run_layers(module: Layer, x: Tensor, lengths: Tensor | None, states: list[States], batch_first: bool) -> Outputs:
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.layers import cell_of, directions, is_layer

    if isinstance(module, LowRankRecurrent) or (is_layer(module) and module.proj_size):
        return _run_parts(module, x, lengths, states, batch_first)
    per_layer, layers = directions(module), module.num_layers
    gates = cell_of(module).gates
    last: list[list[Tensor]] = []
    for layer in range(layers):
        swap = batch_first and layer == layers - 1
        first, end = layer * per_layer, (layer + 1) * per_layer
        if hasattr(module, f"R_l{layer}{REVERSE}"):
            outputs = []
            for index, suffix in ((first, ""), (first + 1, REVERSE)):
                given = [_rows(state, index, index + 1, layers * per_layer) for state in states]
                y, *node_last = recurrent_node(
                    module, f"l{layer}{suffix}", gates, x, given, lengths=lengths, backward=bool(suffix)
                )  # y: (T, 1, B, H)
                outputs.append(y.squeeze(1))
                last.append(node_last)
            x = _side_by_side(outputs, swap)
        else:
            given = [_rows(state, first, end, layers * per_layer) for state in states]
            y, *node_last = recurrent_node(module, f"l{layer}", gates, x, given, lengths=lengths)  # y: (T, D, B, H)
            last.append(node_last)
            x = _join_directions(module, y, swap)
    return x, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]


def _run_parts(
    module: RecurrentLayer | LowRankRecurrent,
    x: Tensor,
    lengths: Tensor | None,
    states: list[States],
    batch_first: bool,
) -> Outputs:
    """The same for a layer whose directions are nodes of their own."""
    import torch

    from compressor.nn.recurrent.layers import directions

    count, total = directions(module), directions(module) * module.num_layers
    valid = None
    if lengths is not None:
        valid = (torch.arange(x.shape[0])[:, None] < lengths)[..., None]  # (T, B, 1)
    last: list[list[Tensor]] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(count):
            index = layer * count + direction
            given = [_rows(state, index, index + 1, total) for state in states]
            y, *ends = _run_part(module, (layer, direction), x, lengths, valid, given)
            outputs.append(y)
            last.append(ends)
        x = torch.cat(outputs, -1) if count > 1 else outputs[0]
    return x.transpose(0, 1) if batch_first else x, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]


def _run_part(
    module: RecurrentLayer | LowRankRecurrent,
    key: tuple[int, int],
    x: Tensor,
    lengths: Tensor | None,
    valid: Tensor | None,
    states: list[Tensor],
) -> tuple[Tensor, ...]:
    """One layer in one direction: y (T, B, H) and the last states (1, B, H), from x (T, B, I).

    `valid` (T, B, 1) is False past the end of a sequence, as `lengths` have it.
    """
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.layers import cell_of, part_suffix, state_widths

    layer, direction = key
    name = part_suffix(layer, direction)
    low = x @ getattr(module, f"P_{name}") if hasattr(module, f"P_{name}") else x
    if hasattr(module, f"R_{name}"):  # a dense recurrent matrix
        y, *ends = recurrent_node(
            module, name, cell_of(module).gates, low, states, lengths=lengths, backward=bool(direction)
        )  # y: (T, 1, B, H)
        return (y.squeeze(1), *ends)
    initial = [state.squeeze(0) for state in states]
    initial = initial or [x.new_zeros(x.shape[1], width) for width in state_widths(module)]
    single = isinstance(x.shape[0], int) and x.shape[0] == 1 and lengths is None
    if single and isinstance(module, LowRankRecurrent):  # a graph that is called step by step needs no loop
        ends = module.step(layer, direction, x.squeeze(0), initial)
        y = ends[0].unsqueeze(0)
    else:
        y, *ends = factored_recurrent.scan(module, name, low, valid, initial, backward=bool(direction))
    return (y, *(end.unsqueeze(0) for end in ends))


def _rows(state: States, first: int, end: int, total: int) -> Tensor:
    """The initial states of some of the `total` layers and directions: (end - first, B, H)."""
    import torch

    if isinstance(state, torch.Tensor):
        return state if end - first == total else state[first:end]
    return torch.stack(list(state[first:end]))


def _side_by_side(outputs: list[Tensor], batch_first: bool) -> Tensor:
    """Two of (T, B, H_i) -> (T, B, sum of H_i), or (B, T, sum of H_i)."""
    import torch

    joined = torch.cat(outputs, -1)
    return joined.transpose(0, 1) if batch_first else joined


def _join_directions(module: Layer, y: Tensor, batch_first: bool) -> Tensor:
    """(T, D, B, H) -> (T, B, D * H), or (B, T, D * H)."""
    import torch

    if not module.bidirectional:
        merged = y.squeeze(1)  # (T, B, H)
        return merged.transpose(0, 1) if batch_first else merged
    parted = y.permute((2, 0, 1, 3) if batch_first else (0, 2, 1, 3))  # (T, B, D, H)
    shape = (parted.shape[0], parted.shape[1], 2 * y.shape[3])
    merge: Any = module.merge_directions
    return torch.onnx.ops.symbolic("Reshape", (parted, merge), dtype=y.dtype, shape=shape)

"""Makes nn.RNN, nn.GRU and nn.LSTM come out of `torch.export` as native ONNX `RNN`, `GRU` and `LSTM` nodes.

So does `UnevenRecurrent`, whose layers and directions differ in size: one node a layer, but two where the directions of
a layer differ, since a bidirectional node has one size. Each layer and direction of a `LowRankRecurrent` is a node of
its own, and of an LSTM with `proj_size`, for which ONNX has no node, a `Scan`: see `low_rank_recurrent`.

The exporter of PyTorch either unrolls these layers over time or hides their weights behind Slice and Concat. Here each
layer of a prepared model emits the ONNX node itself, its weights in ONNX gate order as plain initializers.
Layouts follow https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM; `layout` 0, so time comes first).
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from compressor.gates import BY_OPERATOR
from exporters.capture import factored_recurrent
from exporters.capture.packed_sequence import PaddedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from compressor.nn.recurrent.factored import LowRankPart, LowRankRecurrent
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    Layer = nn.RNNBase | UnevenRecurrent | LowRankRecurrent
    States = Tensor | Sequence[Tensor]

_PREPARED = "_native_onnx_operator"


_REVERSE = "_reverse"
"""Ends the names of the buffers of a backward direction that has a node of its own."""


def prepare(model: nn.Module, *, parts: bool = False) -> None:
    """Give every recurrent layer of `model` buffers with its weights as the ONNX node wants them; changes `model`.

    With D directions, G gates, H hidden units and I inputs, layer k gets `W_lk` (D, G * H, I), `R_lk` (D, G * H, H)
    and, where it has biases, `B_lk` (D, 2 * G * H). Where its directions differ in size, or share a
    matrix with something else, these are the forward one's (D = 1), and `W_lk_reverse` and so on the backward one's.

    Args:
        model: What is changed.
        parts: The layers that an `UnevenRecurrent` consists of become nodes one by one, and not the whole of it.
    """
    from torch import nn

    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.gates import recurrent_modules
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    shared = _shared_matrices(model)
    for module in model.modules():
        if isinstance(module, LowRankRecurrent):
            _prepare_low_rank(module)
    uneven = {} if parts else {n: m for n, m in model.named_modules() if isinstance(m, UnevenRecurrent)}
    inside = {id(part) for module in uneven.values() for part in module.modules()}
    single = {name: module for name, module in recurrent_modules(model).items() if id(module) not in inside}
    modules: dict[str, nn.RNNBase | UnevenRecurrent] = {**uneven, **single}
    for module in modules.values():
        if isinstance(module, nn.LSTM) and module.proj_size:
            factored_recurrent.prepare_projected(module)
            setattr(module, _PREPARED, "LSTM")
        else:
            _prepare_layers(module, shared)


def _prepare_layers(module: nn.RNNBase | UnevenRecurrent, shared: set[int]) -> None:
    """The buffers of one module; a bidirectional node would hold a matrix of `shared` once more."""
    import torch

    from compressor.nn.recurrent.uneven import part_weights

    operator = module.mode.partition("_")[0]
    with torch.no_grad():
        for layer in range(module.num_layers):
            weights = [part_weights(module, layer, direction) for direction in range(_directions(module))]
            tensors = [[(part.weight_ih,), (part.weight_hh,), part.biases] for part in weights]
            even = len({part.weight_hh.shape for part in weights}) == 1 and not any(
                id(tensor) in shared for part in weights for tensor in part.tensors
            )
            for suffix, nodes in (("", tensors if even else tensors[:1]), (_REVERSE, [] if even else tensors[1:])):
                for kind, sources in zip("WRB", zip(*nodes, strict=True), strict=False):
                    if sources[0]:
                        rows = [torch.cat([_reorder(tensor, operator) for tensor in source]) for source in sources]
                        module.register_buffer(f"{kind}_l{layer}{suffix}", torch.stack(rows))
    if module.bidirectional:
        # Reshape reads 0 as "keep this axis": (T, B, D, H) -> (T, B, D * H) without a question about T or B.
        module.register_buffer("merge_directions", torch.tensor([0, 0, -1]))
    setattr(module, _PREPARED, operator)


def _shared_matrices(model: nn.Module) -> set[int]:
    """Identities of the matrices that `model` has under several names."""
    names = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {id(parameter) for parameter in model.parameters() if names[id(parameter)] > 1 and parameter.dim() > 1}


def _prepare_low_rank(module: LowRankRecurrent) -> None:
    """Buffers for the first factor of an input matrix (`P_`), and then for a native node or a Scan."""
    import torch

    from compressor.nn.factored_linear import LowRankLinear

    operator = module.mode.partition("_")[0]
    with torch.no_grad():
        for layer in range(module.num_layers):
            for direction in range(_directions(module)):
                name, part = _part_name(layer, direction), module.part(layer, direction)
                if isinstance(part.input, LowRankLinear):
                    module.register_buffer(f"P_{name}", part.input.down.weight.T.contiguous())
                if isinstance(part.hidden, LowRankLinear):
                    factored_recurrent.prepare_part(module, name, part, module.mode)
                else:
                    _prepare_dense_part(module, name, part, operator)
    setattr(module, _PREPARED, operator)


def _prepare_dense_part(module: LowRankRecurrent, name: str, part: LowRankPart, operator: str) -> None:
    import torch

    from compressor.nn.factored_linear import LowRankLinear

    first = part.input.up.weight if isinstance(part.input, LowRankLinear) else part.input.weight
    module.register_buffer(f"W_{name}", _reorder(first, operator).unsqueeze(0))
    module.register_buffer(f"R_{name}", _reorder(part.hidden.weight, operator).unsqueeze(0))
    if module.bias:
        biases = [_reorder(bias, operator) for bias in (part.input.bias, part.hidden.bias) if bias is not None]
        module.register_buffer(f"B_{name}", torch.cat(biases).unsqueeze(0))


def _part_name(layer: int, direction: int) -> str:
    return f"l{layer}" + (_REVERSE if direction else "")


def _directions(module: Layer) -> int:
    return 2 if module.bidirectional else 1


def _reorder(weight: Tensor, operator: str) -> Tensor:
    """`weight` (G * H, ...) with its gates in ONNX order."""
    import torch

    order = BY_OPERATOR[operator].to_onnx
    blocks = weight.chunk(len(order))
    return torch.cat([blocks[place] for place in order])


@contextmanager
def native_nodes() -> Iterator[None]:
    """Within the block, prepared layers emit native nodes; all other layers of the process work as always.

    `forward` is replaced on the classes and not on the layers, so that a subclass which calls `super().forward`
    is covered, and the model keeps its own modules with all their attributes.
    """
    from torch import nn

    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    classes: tuple[Any, ...] = (nn.RNN, nn.GRU, nn.LSTM, UnevenRecurrent, LowRankRecurrent)
    originals = [cls.forward for cls in classes]
    for cls, original in zip(classes, originals, strict=True):
        cls.forward = _dispatcher(original)
    try:
        yield
    finally:
        for cls, original in zip(classes, originals, strict=True):
            cls.forward = original


def _dispatcher(original: Any) -> Any:
    def forward(self: Layer, input: Any, hx: Any = None) -> Any:  # noqa: A002 the layer's own argument name
        return _forward(self, input, hx) if hasattr(self, _PREPARED) else original(self, input, hx)

    return forward


def _forward(module: Layer, layer_input: Any, hx: Any) -> tuple[Any, Any]:
    """What `module.forward` gives: the output and the last state(s), with the shapes that PyTorch documents."""
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
    joined = [_join_states(parts, batched) for parts in last]
    return output, tuple(joined) if module.mode == "LSTM" else joined[0]


def _as_states(module: Layer, hx: Any, batched: bool) -> list[States]:
    """The initial states that were given, each (L * D, B, H) or a sequence of (B, H_i); empty where none was."""
    import torch

    if hx is None:
        return []
    states = list(hx) if module.mode == "LSTM" else [hx]
    if batched:
        return states
    return [s.unsqueeze(1) if isinstance(s, torch.Tensor) else [part.unsqueeze(0) for part in s] for s in states]


def _join_states(parts: list[Tensor], batched: bool) -> Any:
    """The last states of all nodes, each (D, B, H), in the form in which the layer gives them."""
    import torch

    from compressor.nn.recurrent.uneven import stack_states

    parts = parts if batched else [part.squeeze(1) for part in parts]
    if len({part.shape[-1] for part in parts}) > 1:
        return stack_states([row for part in parts for row in part.split(1)])
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _run_layers(
    module: Layer, x: Tensor, lengths: Tensor | None, states: list[States], batch_first: bool
) -> tuple[Tensor, list[list[Tensor]]]:
    """Output (T, B, D * H), or (B, T, D * H) with `batch_first`, and for h and c the last states of every node."""
    from compressor.nn.recurrent.factored import LowRankRecurrent

    if isinstance(module, LowRankRecurrent) or module.proj_size:
        return _run_parts(module, x, lengths, states, batch_first)
    per_layer, layers = _directions(module), module.num_layers
    last: list[list[Tensor]] = []
    for layer in range(layers):
        swap = batch_first and layer == layers - 1
        first, end = layer * per_layer, (layer + 1) * per_layer
        if hasattr(module, f"R_l{layer}{_REVERSE}"):
            outputs = []
            for index, suffix in ((first, ""), (first + 1, _REVERSE)):
                own = [_rows(state, index, index + 1, layers * per_layer) for state in states]
                y, *node_last = _node(module, f"l{layer}{suffix}", x, lengths, own)  # y: (T, 1, B, H)
                outputs.append(y.squeeze(1))
                last.append(node_last)
            x = _side_by_side(outputs, swap)
        else:
            own = [_rows(state, first, end, layers * per_layer) for state in states]
            y, *node_last = _node(module, f"l{layer}", x, lengths, own)  # y: (T, D, B, H)
            last.append(node_last)
            x = _join_directions(module, y, swap)
    return x, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]


def _run_parts(
    module: Layer, x: Tensor, lengths: Tensor | None, states: list[States], batch_first: bool
) -> tuple[Tensor, list[list[Tensor]]]:
    """The same for a layer whose directions are nodes of their own."""
    import torch
    from torch import nn

    from compressor.nn.recurrent.factored import LowRankRecurrent

    count, total = _directions(module), _directions(module) * module.num_layers
    valid = None
    if lengths is not None:
        valid = (torch.arange(x.shape[0])[:, None] < lengths)[..., None]  # (T, B, 1)
    last: list[list[Tensor]] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(count):
            name, index = _part_name(layer, direction), layer * count + direction
            own = [_rows(state, index, index + 1, total) for state in states]
            low = x @ getattr(module, f"P_{name}") if hasattr(module, f"P_{name}") else x
            if hasattr(module, f"R_{name}"):  # a dense recurrent matrix
                y, *ends = _node(module, name, low, lengths, own)  # y: (T, 1, B, H)
                y = y.squeeze(1)
            else:
                hidden = cast("int", module.hidden_size)
                sizes = [module.proj_size or hidden, hidden][: 2 if module.mode == "LSTM" else 1]
                given = [state.squeeze(0) for state in own] or [x.new_zeros(x.shape[1], size) for size in sizes]
                single = isinstance(x.shape[0], int) and x.shape[0] == 1 and valid is None
                if single and isinstance(module, LowRankRecurrent):
                    y, *ends = factored_recurrent.one_step(module.mode, module.part(layer, direction), x, given)
                else:
                    assert isinstance(module, (LowRankRecurrent, nn.LSTM))
                    y, *ends = factored_recurrent.scan(module, name, low, valid, given, backward=bool(direction))
                ends = [end.unsqueeze(0) for end in ends]
            outputs.append(y)
            last.append(ends)
        x = torch.cat(outputs, -1) if count > 1 else outputs[0]
    return x.transpose(0, 1) if batch_first else x, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]


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


def prepare_cell(
    owner: nn.Module, suffix: str, operator: str, weight_ih: Tensor, weight_hh: Tensor, biases: Sequence[Tensor]
) -> None:
    """Give a module buffers with the weights of one recurrent cell as its node wants them: `W_`, `R_`, and `B_suffix`.

    Args:
        owner: Gets the buffers.
        suffix: Ends their names.
        operator: RNN, GRU or LSTM.
        weight_ih: (G * H, I).
        weight_hh: (G * H, H).
        biases: None, or two of (G * H,).
    """
    import torch

    with torch.no_grad():
        owner.register_buffer(f"W_{suffix}", _reorder(weight_ih, operator).unsqueeze(0))
        owner.register_buffer(f"R_{suffix}", _reorder(weight_hh, operator).unsqueeze(0))
        if biases:
            joined = torch.cat([_reorder(bias, operator) for bias in biases])
            owner.register_buffer(f"B_{suffix}", joined.unsqueeze(0))


def cell_node(
    owner: nn.Module, suffix: str, operator: str, mode: str, x: Tensor, states: list[Tensor], *, backward: bool
) -> tuple[Tensor, ...]:
    """The node of a cell that was prepared: y (T, 1, B, H) and the last states (1, B, H), from x (T, B, I).

    Args:
        owner: Has the buffers.
        suffix: Ends their names.
        operator: RNN, GRU or LSTM.
        mode: As `nn.RNNBase.mode`.
        x: Inputs at all steps.
        states: h, and c (1, B, H).
        backward: Run from the last step to the first.
    """
    weights = [getattr(owner, f"{kind}_{suffix}", None) for kind in "WRB"]
    return _emit(operator, mode, x, weights, None, states, "reverse" if backward else "forward")


def _node(module: Layer, name: str, x: Tensor, lengths: Tensor | None, states: list[Tensor]) -> tuple[Tensor, ...]:
    """One native node on x (T, B, I) with the buffers that end in `name`: y (T, D, B, H), last states (D, B, H)."""
    weights = [getattr(module, f"{kind}_{name}", None) for kind in "WRB"]
    assert weights[1] is not None
    both = weights[1].shape[0] == 2
    direction = "bidirectional" if both else "reverse" if name.endswith(_REVERSE) else "forward"
    return _emit(getattr(module, _PREPARED), module.mode, x, weights, lengths, states, direction)


def _emit(
    operator: str,
    mode: str,
    x: Tensor,
    weights: list[Tensor | None],
    lengths: Tensor | None,
    states: list[Tensor],
    direction: str,
) -> tuple[Tensor, ...]:
    """A native node: y (T, D, B, H), last states (D, B, H)."""
    import torch

    time, batch = x.shape[:2]
    assert weights[1] is not None
    both, _, hidden = weights[1].shape
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if operator == "GRU":
        attributes["linear_before_reset"] = 1
    if mode == "RNN_RELU":
        attributes["activations"] = ["Relu"] * both
    outputs = 3 if operator == "LSTM" else 2
    shapes = ((time, both, batch, hidden), *[(both, batch, hidden)] * (outputs - 1))
    inputs: list[Tensor | None] = [x, *weights, lengths, *states]
    while inputs[-1] is None:  # trailing optional inputs are left out, as ONNX allows
        inputs.pop()
    return tuple(
        torch.onnx.ops.symbolic_multi_out(operator, inputs, attributes, dtypes=(x.dtype,) * outputs, shapes=shapes)
    )

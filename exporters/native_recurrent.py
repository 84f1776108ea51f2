"""Makes nn.RNN, nn.GRU and nn.LSTM come out of `torch.export` as native ONNX `RNN`, `GRU` and `LSTM` nodes.

The exporter of PyTorch either unrolls these layers over time or hides their weights behind Slice and Concat. Here each
layer of a prepared model emits the ONNX node itself, its weights in ONNX gate order as plain initializers.
Layouts follow https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM; `layout` 0, so time comes first).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compressor.errors import ExportError
from exporters.packed_sequence import PaddedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

_GATE_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""For each gate of the ONNX node, its place in PyTorch: GRU r,z,n -> z,r,h; LSTM i,f,g,o -> i,o,f,c."""

_PREPARED = "_native_onnx_operator"


def prepare(model: nn.Module) -> None:
    """Give every recurrent layer of `model` buffers with its weights as the ONNX node wants them; changes `model`.

    With D directions, G gates, H hidden units and I inputs, layer k gets `W_lk` (D, G * H, I), `R_lk` (D, G * H, H)
    and, where it has biases, `B_lk` (D, 2 * G * H).

    Raises:
        ExportError: A layer is an LSTM with `proj_size`, for which ONNX has no node.
    """
    from compressor.nn.recurrent import recurrent_modules

    for name, module in recurrent_modules(model).items():
        if module.proj_size > 0:
            raise ExportError(
                f"`{name}` is an LSTM with proj_size={module.proj_size}, which ONNX cannot express",
                hint="use an LSTM without proj_size and a Linear layer behind it",
            )
        _prepare_layers(module)


def _prepare_layers(module: nn.RNNBase) -> None:
    import torch

    from compressor.nn.recurrent import directions, layer_names

    operator = module.mode.partition("_")[0]
    rows: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for names in layer_names(module):
            sources = (("W", (names.weight_ih,)), ("R", (names.weight_hh,)), ("B", (names.bias_ih, names.bias_hh)))
            for kind, parameters in sources:
                parts = [_reorder(getattr(module, name), operator) for name in parameters if name is not None]
                if parts:
                    rows.setdefault(f"{kind}_l{names.layer}", []).append(torch.cat(parts))
        for buffer, per_direction in rows.items():
            module.register_buffer(buffer, torch.stack(per_direction))
    if directions(module) == 2:
        # Reshape reads 0 as "keep this axis": (T, B, D, H) -> (T, B, D * H) without a question about T or B.
        module.register_buffer("merge_directions", torch.tensor([0, 0, -1]))
    setattr(module, _PREPARED, operator)


def _reorder(weight: Tensor, operator: str) -> Tensor:
    """`weight` (G * H, ...) with its gates in ONNX order."""
    import torch

    gates = weight.chunk(len(_GATE_ORDER[operator]))
    return torch.cat([gates[gate] for gate in _GATE_ORDER[operator]])


@contextmanager
def native_nodes() -> Iterator[None]:
    """Within the block, prepared layers emit native nodes; all other layers of the process work as always.

    `forward` is replaced on the classes and not on the layers, so that a subclass which calls `super().forward`
    is covered, and the model keeps its own modules with all their attributes.
    """
    from torch import nn

    classes: tuple[Any, ...] = (nn.RNN, nn.GRU, nn.LSTM)
    originals = [cls.forward for cls in classes]
    for cls, original in zip(classes, originals, strict=True):
        cls.forward = _dispatcher(original)
    try:
        yield
    finally:
        for cls, original in zip(classes, originals, strict=True):
            cls.forward = original


def _dispatcher(original: Any) -> Any:
    def forward(self: nn.RNNBase, input: Any, hx: Any = None) -> Any:  # noqa: A002 the layer's own argument name
        return _forward(self, input, hx) if hasattr(self, _PREPARED) else original(self, input, hx)

    return forward


def _forward(module: nn.RNNBase, layer_input: Any, hx: Any) -> tuple[Any, Any]:
    """What `module.forward` gives: the output and the last state(s), with the shapes that PyTorch documents."""
    packed = isinstance(layer_input, PaddedSequence)
    batched = packed or layer_input.dim() == 3
    batch_first = module.batch_first and batched and not packed
    states = _as_states(hx, batched)

    x = layer_input.padded if packed else layer_input if batched else layer_input.unsqueeze(1)
    x = x.transpose(0, 1) if batch_first else x  # (T, B, I)
    lengths = layer_input.node_lengths if packed else None
    output, last = _run_layers(module, x, lengths, states, batch_first)

    if packed:
        output = layer_input.with_steps(output)
    elif not batched:
        output, last = output.squeeze(1), [state.squeeze(1) for state in last]
    return output, tuple(last) if module.mode == "LSTM" else last[0]


def _as_states(hx: Any, batched: bool) -> list[Tensor]:
    """The initial states that were given, each (L * D, B, H); an empty list where none was."""
    if hx is None:
        return []
    states = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    return states if batched else [state.unsqueeze(1) for state in states]


def _run_layers(
    module: nn.RNNBase, x: Tensor, lengths: Tensor | None, states: list[Tensor], batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """Output (T, B, D * H), or (B, T, D * H) with `batch_first`, and the last states, each (L * D, B, H)."""
    import torch

    from compressor.nn.recurrent import directions

    per_layer, layers = directions(module), module.num_layers
    last: list[list[Tensor]] = []
    for layer in range(layers):
        own = states if layers == 1 else [state[layer * per_layer : (layer + 1) * per_layer] for state in states]
        y, *layer_last = _node(module, layer, x, lengths, own)  # y: (T, D, B, H)
        x = _join_directions(module, y, batch_first and layer == layers - 1)
        last.append(layer_last)
    joined = [torch.cat(parts) if layers > 1 else parts[0] for parts in zip(*last, strict=True)]
    return x, joined


def _join_directions(module: nn.RNNBase, y: Tensor, batch_first: bool) -> Tensor:
    """(T, D, B, H) -> (T, B, D * H), or (B, T, D * H)."""
    import torch

    if not module.bidirectional:
        merged = y.squeeze(1)  # (T, B, H)
        return merged.transpose(0, 1) if batch_first else merged
    parted = y.permute((2, 0, 1, 3) if batch_first else (0, 2, 1, 3))  # (T, B, D, H)
    shape = (parted.shape[0], parted.shape[1], 2 * module.hidden_size)
    merge: Any = module.merge_directions
    return torch.onnx.ops.symbolic("Reshape", (parted, merge), dtype=y.dtype, shape=shape)


def _node(
    module: nn.RNNBase, layer: int, x: Tensor, lengths: Tensor | None, states: list[Tensor]
) -> tuple[Tensor, ...]:
    """One native node on x (T, B, I): y (T, D, B, H) and the last states, each (D, B, H)."""
    import torch

    from compressor.nn.recurrent import directions

    time, batch = x.shape[:2]
    both, hidden = directions(module), module.hidden_size
    operator = getattr(module, _PREPARED)
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if both == 2 else "forward",
    }
    if operator == "GRU":
        attributes["linear_before_reset"] = 1
    if module.mode == "RNN_RELU":
        attributes["activations"] = ["Relu"] * both
    weights = [getattr(module, f"{kind}_l{layer}", None) for kind in "WRB"]
    outputs = 3 if operator == "LSTM" else 2
    shapes = ((time, both, batch, hidden), *[(both, batch, hidden)] * (outputs - 1))
    inputs: list[Tensor | None] = [x, *weights, lengths, *states]
    while inputs[-1] is None:  # trailing optional inputs are left out, as ONNX allows
        inputs.pop()
    return tuple(
        torch.onnx.ops.symbolic_multi_out(operator, inputs, attributes, dtypes=(x.dtype,) * outputs, shapes=shapes)
    )

"""Weights of recurrent layers as native ONNX nodes want them, in buffers of the layers.

PyTorch's layers and `UnevenRecurrent` become one node a layer, but two if the directions of a layer differ, since a
bidirectional node has one size. Each layer and direction of a `LowRankRecurrent` is a node of its own, and of an LSTM
with `proj_size`, for which ONNX has no node, a `Scan`: see `factored_recurrent`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from exporters.capture import factored_recurrent
from exporters.capture.native_node import REVERSE, prepare_node

if TYPE_CHECKING:
    from torch import nn

    from compressor.nn.recurrent.cells import RecurrentLayer, Weights
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.factored_part import LowRankPart
    from compressor.nn.recurrent.uneven import UnevenRecurrent

PREPARED = "_has_native_nodes"
"""Attribute of a layer that was prepared."""


def prepare(model: nn.Module, *, parts: bool = False) -> None:
    """Give every recurrent layer of `model` buffers with its weights as the ONNX node wants them; changes `model`.

    A layer that ONNX has no node for is left as it is: its loop is exported.

    With D directions, G gates, H hidden units and I inputs, layer k gets `W_lk` (D, G * H, I), `R_lk` (D, G * H, H)
    and, with biases, `B_lk` (D, 2 * G * H). If its directions differ in size, or share a
    matrix with something else, these are the forward one's (D = 1), and `W_lk_reverse` and so on the backward one's.

    Args:
        model: What is changed.
        parts: The layers that an `UnevenRecurrent` consists of become nodes one by one, and not the whole of it.
    """
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.layers import cell_of, recurrent_modules
    from compressor.nn.recurrent.uneven import UnevenRecurrent

    shared = _shared_matrices(model)
    for module in model.modules():
        if isinstance(module, LowRankRecurrent):
            _prepare_low_rank(module)
    uneven = {} if parts else {n: m for n, m in model.named_modules() if isinstance(m, UnevenRecurrent)}
    inside = {id(part) for module in uneven.values() for part in module.modules()}
    single = {name: module for name, module in recurrent_modules(model).items() if id(module) not in inside}
    for whole in uneven.values():
        if whole.cell.is_native:
            _prepare_layers(whole, shared)
    for layer in single.values():
        if not cell_of(layer).is_native:
            continue  # its own loop is exported
        if layer.proj_size:
            factored_recurrent.prepare_projected(layer)
            setattr(layer, PREPARED, True)
        else:
            _prepare_layers(layer, shared)


def _prepare_layers(module: RecurrentLayer | UnevenRecurrent, shared: set[int]) -> None:
    """The buffers of one module; a bidirectional node would hold a matrix of `shared` once more."""
    import torch

    from compressor.nn.recurrent.layers import cell_of, directions, part_weights

    gates = cell_of(module).gates
    for layer in range(module.num_layers):
        weights = [part_weights(module, layer, direction) for direction in range(directions(module))]
        even = len({part["weight_hh"].shape for part in weights}) == 1 and not any(
            id(tensor) in shared for part in weights for tensor in part.values()
        )
        nodes = [weights] if even else [[part] for part in weights]
        for suffix, node in zip(("", REVERSE), nodes, strict=False):
            prepare_node(module, f"l{layer}{suffix}", gates, node)
    if module.bidirectional:
        # Reshape reads 0 as "keep this axis": (T, B, D, H) -> (T, B, D * H) without a question about T or B.
        module.register_buffer("merge_directions", torch.tensor([0, 0, -1]))
    setattr(module, PREPARED, True)


def _shared_matrices(model: nn.Module) -> set[int]:
    """Identities of the matrices that `model` has under several names."""
    names = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {id(parameter) for parameter in model.parameters() if names[id(parameter)] > 1 and parameter.dim() > 1}


def _prepare_low_rank(module: LowRankRecurrent) -> None:
    """Buffers for the first factor of an input matrix (`P_`), and then for a native node or a Scan."""
    from compressor.nn.factored_linear import LowRankLinear
    from compressor.nn.recurrent.layers import directions, part_suffix

    for layer in range(module.num_layers):
        for direction in range(directions(module)):
            name, part = part_suffix(layer, direction), module.part(layer, direction)
            if isinstance(part.input, LowRankLinear):
                module.register_buffer(f"P_{name}", part.input.down.weight.detach().T.contiguous())
            if isinstance(part.hidden, LowRankLinear):
                factored_recurrent.prepare_part(module, name, part)
            else:
                prepare_node(module, name, module.cell.gates, [_dense_weights(part)])
    setattr(module, PREPARED, True)


def _dense_weights(part: LowRankPart) -> Weights:
    """The weights of a node behind the first factor of the input matrix."""
    from compressor.nn.factored_linear import LowRankLinear

    last = part.input.up if isinstance(part.input, LowRankLinear) else part.input
    weights = {"weight_ih": last.weight, "weight_hh": part.hidden.weight}
    biases = {"bias_ih": part.input.bias, "bias_hh": part.hidden.bias}
    return weights | {name: bias for name, bias in biases.items() if bias is not None}

"""What is common to `nn.RNN`, `nn.GRU` and `nn.LSTM`: how their weights are named and laid out.

A recurrent layer of hidden size H and input size I keeps, per layer and direction, `weight_ih` (G*H, I), `weight_hh`
(G*H, H) and two biases (G*H,), where G gates lie block after block: RNN 1; GRU r, z, n; LSTM i, f, g, o.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}
"""`mode` of an `nn.RNNBase` -> number of gate blocks."""
CELL_GATES: dict[type[nn.Module], int] = {nn.RNNCell: 1, nn.GRUCell: 3, nn.LSTMCell: 4}


@dataclass(frozen=True)
class LayerNames:
    """The parameter names of one layer in one direction; None where the layer has no such parameter."""

    layer: int
    direction: int
    weight_ih: str
    weight_hh: str
    bias_ih: str | None
    bias_hh: str | None
    weight_hr: str | None


def gates(module: nn.RNNBase) -> int:
    """Number of gate blocks."""
    return GATES[module.mode]


def directions(module: nn.RNNBase) -> int:
    """1, or 2 for a bidirectional module."""
    return 2 if module.bidirectional else 1


def layer_names(module: nn.RNNBase) -> Iterator[LayerNames]:
    """The parameter names, layer by layer, the forward direction first: the order of `h_n`'s first axis."""
    for layer in range(module.num_layers):
        for direction in range(directions(module)):
            suffix = f"l{layer}" + ("_reverse" if direction else "")
            yield LayerNames(
                layer,
                direction,
                f"weight_ih_{suffix}",
                f"weight_hh_{suffix}",
                f"bias_ih_{suffix}" if module.bias else None,
                f"bias_hh_{suffix}" if module.bias else None,
                f"weight_hr_{suffix}" if module.proj_size else None,
            )


def recurrent_modules(model: nn.Module) -> dict[str, nn.RNNBase]:
    """Name -> module, for every `nn.RNN`, `nn.GRU` and `nn.LSTM` of a model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}

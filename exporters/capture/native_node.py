"""One native ONNX node `RNN`, `GRU` or `LSTM` while a model is traced, and its weights as the node wants them.

Layouts follow https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM; `layout` 0, so time comes first).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.gates import BY_OPERATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from compressor.gates import CellGates
    from compressor.nn.recurrent.cells import Weights

REVERSE = "_reverse"
"""Ends the names of the buffers of a backward direction that has a node of its own."""


def prepare_node(owner: nn.Module, suffix: str, gates: CellGates, directions: Sequence[Weights]) -> None:
    """Give a module buffers with the weights of one node; changes `owner`.

    Args:
        owner: Gets `W_suffix` (D, G * H, I), `R_suffix` (D, G * H, H) and, with biases, `B_suffix` (D, 2 * G * H).
        suffix: Ends their names.
        gates: Of the cell.
        directions: The weights of the D directions.
    """
    import torch

    tensors = {"W": ("weight_ih",), "R": ("weight_hh",), "B": ("bias_ih", "bias_hh")}
    with torch.no_grad():
        for kind, names in tensors.items():
            if names[0] in directions[0]:
                rows = [torch.cat([_in_onnx_order(weights[name], gates) for name in names]) for weights in directions]
                owner.register_buffer(f"{kind}_{suffix}", torch.stack(rows))


def _in_onnx_order(weight: Tensor, gates: CellGates) -> Tensor:
    """`weight` (G * H, ...) with its gates in the order of ONNX."""
    import torch

    blocks = weight.chunk(gates.count)
    return torch.cat([blocks[place] for place in gates.to_onnx])


def recurrent_node(
    owner: nn.Module,
    suffix: str,
    gates: CellGates,
    x: Tensor,
    states: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    backward: bool = False,
) -> tuple[Tensor, ...]:
    """The node of prepared weights: y (T, D, B, H) and the last states (D, B, H).

    Args:
        owner: Has the buffers.
        suffix: Ends their names.
        gates: Of the cell.
        x: Inputs at all steps (T, B, I).
        states: h, and c (D, B, H); zeros if there are none.
        lengths: `sequence_lens` (B,), int32.
        backward: A node of one direction runs from the last step to the first.
    """
    import torch

    weights = [getattr(owner, f"{kind}_{suffix}", None) for kind in "WRB"]
    assert weights[1] is not None
    time, batch = x.shape[:2]
    directions, _, hidden = weights[1].shape
    direction = "bidirectional" if directions == 2 else "reverse" if backward else "forward"
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if any(gate.state_scaled for gate in gates.gates):
        attributes["linear_before_reset"] = 1
    if gates.activations != BY_OPERATOR[gates.operator].activations:
        attributes["activations"] = list(gates.activations) * directions
    outputs = 1 + len(gates.states)
    shapes = ((time, directions, batch, hidden), *[(directions, batch, hidden)] * (outputs - 1))
    inputs: list[Tensor | None] = [x, *weights, lengths, *states]
    while inputs[-1] is None:  # trailing optional inputs are left out, as ONNX allows
        inputs.pop()
    return tuple(
        torch.onnx.ops.symbolic_multi_out(
            gates.operator, inputs, attributes, dtypes=(x.dtype,) * outputs, shapes=shapes
        )
    )

"""The equations of recurrent cells in ONNX operators, as in https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM).

With inputs x, state h, weights W and U and biases b, a gate is an activation of its sum W x + U h + b. How the products
are computed (dense, by two factors, in integers) is the caller's business: a cell starts from the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.gates import LSTM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from compressor.onnx_graphs.builder import Builder


def rnn(do: Builder, total: ir.Value, activation: str) -> list[ir.Value]:
    """One step: h' = `Tanh` or `Relu` of the sum (B, H)."""
    return [do(activation, [total])]


def lstm(
    do: Builder, total: ir.Value, cell: ir.Value, size: int, order: Sequence[str], *, joint: bool = True
) -> list[ir.Value]:
    """One step: c' = forget * c + input * cell, h' = output * tanh(c').

    Args:
        do: Gets the nodes.
        total: Sums of all gates (B, 4 * H).
        cell: c (B, H).
        size: H.
        order: Names of the gates in `total`.
        joint: One Sigmoid for three gates, of which `cell` is then the last; else one for each.

    Returns:
        h' and c'.
    """
    if joint:
        smooth, new = do.several("Split", [total, do.integers(3 * size, size)], 2, axis=1)
        parts = do.several("Split", [do("Sigmoid", [smooth]), do.integers(size, size, size)], 3, axis=1)
        gates = dict(zip(order, [*parts, do("Tanh", [new])], strict=True))
    else:
        parts = do.several("Split", [total, do.integers(*[size] * 4)], 4, axis=1)
        activations = {gate.name: gate.activation for gate in LSTM.gates}
        gates = {name: do(activations[name], [part]) for name, part in zip(order, parts, strict=True)}
    new = do("Add", [do("Mul", [gates["forget"], cell]), do("Mul", [gates["input"], gates["cell"]])])
    return [do("Mul", [gates["output"], do("Tanh", [new])]), new]


def gru(
    do: Builder,
    total: ir.Value,
    inputs: ir.Value,
    state: ir.Value,
    product: Callable[[ir.Value], ir.Value],
    size: int,
    order: Sequence[str],
    *,
    reset_first: bool = False,
    one: ir.Value | None = None,
) -> list[ir.Value]:
    """One step: new = tanh(inputs + reset * (U h + b)), h' = new + update * (h - new).

    Args:
        do: Gets the nodes.
        total: Sums of the gates `reset` and `update` (B, 2 * H).
        inputs: What of the sum of `new` does not come from the state: W x + b (B, H).
        state: h (B, H).
        product: U s + b of `new` (B, H), given s (B, H).
        size: H.
        order: Names of the gates; `total` has the first two.
        reset_first: new = tanh(inputs + U (reset * h) + b), as `linear_before_reset` 0 has it; PyTorch's is 1.
        one: If given, h' = (one - update) * new + update * h, the same but for rounding.

    Returns:
        h'.
    """
    parts = do.several("Split", [do("Sigmoid", [total]), do.integers(size, size)], 2, axis=1)
    gates = dict(zip(order[:2], parts, strict=True))
    reset, update = gates["reset"], gates["update"]
    of_state = product(do("Mul", [reset, state])) if reset_first else do("Mul", [reset, product(state)])
    new = do("Tanh", [do("Add", [inputs, of_state])])
    if one is None:
        return [do("Add", [new, do("Mul", [update, do("Sub", [state, new])])])]
    return [do("Add", [do("Mul", [do("Sub", [one, update]), new]), do("Mul", [update, state])])]


def held(do: Builder, valid: ir.Value, new: Sequence[ir.Value], old: Sequence[ir.Value]) -> list[ir.Value]:
    """The new states, but the old ones of sequences that are over; `valid` (B, 1) is False for those."""
    return [do("Where", [valid, after, before]) for after, before in zip(new, old, strict=True)]

"""The `Attention` operator as plain operations: softmax(scale Q K^T + mask) V.

A row of the mask that hides every position gives zeros, as in the operator: its weights, of which the softmax of equal
scores would make a mean, are multiplied by zero. That needs neither `Where` nor a comparison, which NNAPI lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from compressor.onnx_graphs.builder import Builder

OPERATORS = frozenset({"Add", "Cast", "Clip", "MatMul", "Mul", "Softmax", "Transpose"})
"""Those that replace it; `Cast` and `Clip` only if its mask is an input."""
_DEFAULTS = {"is_causal": 0, "softcap": 0.0, "left_window_size": -1, "right_window_size": -1}
_WHY_NOT = {
    "is_causal": "it has a causal mask of its own",
    "softcap": "it caps its scores",
    "left_window_size": "it sees a window of positions only",
    "right_window_size": "it sees a window of positions only",
}
_WITHOUT_EFFECT = {"scale", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode", "softmax_precision"}
"""Attributes that `write` follows, or that change nothing in a node of four axes and float32 with one output."""
_LOWEST = float(np.finfo(np.float32).min)
_MASKED = -1e9
"""Added to a score that a mask hides."""


def obstacle(node: ir.Node) -> str:
    """Why a node cannot be written as plain operations; empty if it can."""
    for name, attribute in node.attributes.items():
        if name not in _WITHOUT_EFFECT and attribute.value != _DEFAULTS.get(name):
            return _WHY_NOT.get(name, f"it has the attribute `{name}`, which is not known here")
    if any(item is not None for item in node.inputs[4:]):
        return "it has a cache, or lengths of its keys"
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "more than its first output is used"
    return _obstacle_of_inputs(*node.inputs[:3])


def _obstacle_of_inputs(query: ir.Value | None, key: ir.Value | None, value: ir.Value | None) -> str:
    assert query is not None
    assert key is not None
    assert value is not None
    if query.dtype != ir.DataType.FLOAT:
        kind = "unknown" if query.dtype is None else str(query.dtype).lower()
        return f"its type is {kind}, in which plain operations round differently: give a file in float32"
    if query.shape is None or key.shape is None or {len(query.shape), len(key.shape)} != {4}:
        return "it has no axis of heads"
    if not isinstance(query.shape[3], int):
        return "the width of its heads is not known"
    return "" if key.shape[1] == query.shape[1] else "its keys have fewer heads than its queries"


def write(do: Builder, node: ir.Node) -> ir.Value:
    """Add the plain operations; `obstacle` must be empty. Gives the output (B, h, T, d)."""
    query, key, value = node.inputs[:3]
    assert query is not None
    assert query.shape is not None
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    scale = node.attributes.get_float("scale", float(query.shape[3]) ** -0.5)  # type: ignore[arg-type]
    scaled = do("Mul", [query, _number(do, scale)])
    scores = do("MatMul", [scaled, do("Transpose", [key], perm=[0, 1, 3, 2])])
    if mask is None:
        return do("MatMul", [do("Softmax", [scores], axis=-1), value])
    added, shown = _of_constant(do, mask) if mask.const_value is not None else _of_input(do, mask)
    weights = do("Softmax", [do("Add", [scores, added])], axis=-1)
    if shown is not None:
        weights = do("Mul", [weights, shown])
    return do("MatMul", [weights, value])


def _of_constant(do: Builder, mask: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """What is added to the scores; and what the weights are multiplied by, None if no row is hidden as a whole."""
    assert mask.const_value is not None
    array = mask.const_value.numpy()
    visible = array if array.dtype == np.bool_ else array > _LOWEST
    added = np.where(visible, 0 if array.dtype == np.bool_ else array, _MASKED).astype(np.float32)
    shown = None if visible.any(axis=-1).all() else do.constant(visible.astype(np.float32))
    return do.constant(added), shown


def _of_input(do: Builder, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The same of a mask that is known only when the file runs."""
    if mask.dtype == ir.DataType.BOOL:
        shown = do("Cast", [mask], to=ir.DataType.FLOAT)
        added = do("Mul", [do("Add", [shown, _number(do, -1.0)]), _number(do, -_MASKED)])
        return added, shown
    # 0 from -inf to the lowest float, 1 above -3e38: ONNX Runtime takes both of the first for hidden
    scaled = do("Add", [do("Mul", [mask, _number(do, 20 / 3e38)]), _number(do, 22.0)])
    shown = do("Clip", [scaled, _number(do, 0.0), _number(do, 1.0)])
    return do("Clip", [mask, _number(do, _LOWEST / 2)]), shown


def _number(do: Builder, number: float) -> ir.Value:
    return do.constant(np.array(number, np.float32))

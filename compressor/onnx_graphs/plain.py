"""Operators as simpler ones that every target takes: LayerNormalization, Attention, ReduceSum and Gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compressor.onnx_graphs import plain_attention
from compressor.onnx_graphs.builder import Builder, Names, first_name, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

OPERATORS = {
    "LayerNormalization": frozenset({"Add", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"}),
    "Attention": plain_attention.OPERATORS,
    "ReduceSum": frozenset({"Mul", "ReduceMean"}),
    "Gather": frozenset({"Slice"}),
}
"""Operator -> the operators that replace it."""
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMean takes its axes as an input."""


def write_plainly(graph: ir.Graph, node: ir.Node) -> str:
    """Replace a node by simpler ones; gives why it cannot be, empty if it was.

    Args:
        graph: Has the node.
        node: Of a type in `OPERATORS`.
    """
    do = Builder(Names.of(graph), f"{first_name(node)}.plain")
    result = _REPLACEMENTS[node.op_type](do, node, graph.opset_imports.get("") or 0)
    if isinstance(result, str):
        return result
    replace(node, do, [result, *[None] * (len(node.outputs) - 1)])
    return ""


def _other_outputs_are_used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _mean(do: Builder, x: ir.Value, axes: Sequence[int], opset: int, *, keep: int = 1) -> ir.Value:
    if opset >= _AXES_ARE_INPUTS:
        return do("ReduceMean", [x, do.integers(*axes)], keepdims=keep)
    return do("ReduceMean", [x], axes=list(axes), keepdims=keep)


def _layer_norm(do: Builder, node: ir.Node, opset: int) -> ir.Value | str:
    """(x - mean) / sqrt(mean of its square + epsilon) * scale + bias."""
    x, scale = node.inputs[0], node.inputs[1]
    assert x is not None
    if x.shape is None or x.dtype is None or _other_outputs_are_used(node):
        return "its shape is not known, or its mean is used"
    axis, rank = node.attributes.get_int("axis", -1), len(x.shape)
    axes = range(axis % rank, rank)
    centred = do("Sub", [x, _mean(do, x, axes, opset)])
    variance = _mean(do, do("Mul", [centred, centred]), axes, opset)
    guard = do.constant(np.array(node.attributes.get_float("epsilon", 1e-5), x.dtype.numpy()))
    scaled = do("Mul", [do("Div", [centred, do("Sqrt", [do("Add", [variance, guard])])]), scale])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return scaled
    return do("Add", [scaled, bias])


def _attention(do: Builder, node: ir.Node, opset: int) -> ir.Value | str:
    """softmax(scale * Q K^T + mask) V."""
    return plain_attention.obstacle(node) or plain_attention.write(do, node)


def _sum(do: Builder, node: ir.Node, opset: int) -> ir.Value | str:
    """The mean times the number of what is summed."""
    x = node.inputs[0]
    assert x is not None
    summed = node.inputs[1] if len(node.inputs) > 1 else None
    if x.shape is None or x.dtype is None or summed is None or summed.const_value is None:
        return "its axes are not constant"
    axes = [int(axis) for axis in summed.const_value.numpy()]
    sizes = [size for size in (x.shape[axis] for axis in axes) if isinstance(size, int)]
    if not x.dtype.is_floating_point() or not axes or len(sizes) < len(axes):
        return "its axes have no fixed size, or it sums whole numbers"
    count = do.constant(np.array(np.prod(sizes), x.dtype.numpy()))
    mean = _mean(do, x, axes, opset, keep=node.attributes.get_int("keepdims", 1))
    return do("Mul", [mean, count])


def _pick(do: Builder, node: ir.Node, opset: int) -> ir.Value | str:
    """A Slice of one, and a Squeeze if the index has no axis."""
    x, index = node.inputs[0], node.inputs[1]
    assert index is not None
    if index.const_value is None or index.const_value.size != 1:
        return "its indices are computed, or several"
    place, axis = int(index.const_value.numpy().reshape(())), node.attributes.get_int("axis", 0)
    end = place + 1 if place != -1 else np.iinfo(np.int64).max
    one = do("Slice", [x, do.integers(place), do.integers(end), do.integers(axis)])
    if index.const_value.shape.rank():
        return one
    return do("Squeeze", [one, do.integers(axis)])


_REPLACEMENTS: dict[str, Callable[[Builder, ir.Node, int], ir.Value | str]] = {
    "LayerNormalization": _layer_norm,
    "Attention": _attention,
    "ReduceSum": _sum,
    "Gather": _pick,
}

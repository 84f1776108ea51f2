"""Makes the masks of opset 23's `Attention` node as large as ONNX Runtime wants them.

ONNX lets a mask be broadcast to (B, h, T, S). ONNX Runtime 1.32 refuses one whose axis of queries or of keys has
another size than T or S ("inconsistent q_sequence_length"), as that of a `key_padding_mask`, (B, 1, 1, S), has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

_QUERY, _KEY, _MASK = 0, 1, 3
"""Places of the node's inputs."""
_BATCHED = 4
"""Axes of queries and keys that have one for the heads: (B, h, T, d)."""


def widen(model: onnx_ir.Model) -> None:
    """Expand every mask whose last two axes are not known to be those of the queries and keys, in place."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Attention" and len(node.inputs) > _MASK and node.inputs[_MASK] is not None:
            _widen(model.graph, node)


def _widen(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    import onnx_ir as ir

    query, key, mask = (node.inputs[place] for place in (_QUERY, _KEY, _MASK))
    assert query is not None
    assert key is not None
    assert mask is not None
    if mask.shape is None or query.shape is None or len(query.shape) != _BATCHED:
        return
    wanted = [_size(query, 2), _size(key, 2)]
    if None not in wanted and [_size(mask, -2), _size(mask, -1)] == wanted:
        return
    sizes = [ir.node("Shape", [value], {"start": 2, "end": 3}) for value in (query, key)]
    ones = ir.Value(name=f"{node.name}.ones", const_value=ir.tensor([1] * (len(mask.shape) - 2), ir.DataType.INT64))
    graph.register_initializer(ones)
    shape = ir.node("Concat", [ones, *(part.outputs[0] for part in sizes)], {"axis": 0})
    wide = ir.node("Expand", [mask, shape.outputs[0]])
    wide.outputs[0].type = mask.type
    assert node.graph is not None
    node.graph.insert_before(node, [*sizes, shape, wide])
    node.replace_input_with(_MASK, wide.outputs[0])


def _size(value: onnx_ir.Value, axis: int) -> int | str | None:
    """A size, the name of a dynamic one, or None."""
    assert value.shape is not None
    size = value.shape[axis]
    return size if isinstance(size, int) else size.value

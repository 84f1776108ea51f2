"""Makes masks of attention say in ONNX what they say in PyTorch.

A row that is masked whole gives 0 in PyTorch. Its exporter adds the smallest number of the type to every score of such
a row, so the row would attend to all positions alike; here the mask itself takes the weights away.

The masks of opset 23's `Attention` node become as large as ONNX Runtime wants them. ONNX lets a mask be broadcast to
(B, h, T, S). ONNX Runtime 1.32 refuses one whose axis of queries or of keys has another size than T or S
("inconsistent q_sequence_length"), as that of a `key_padding_mask`, (B, 1, 1, S), has.
"""

from __future__ import annotations

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names

FIRST_WITH_ATTENTION = 23
"""The opset in which the node came."""
_QUERY, _KEY, _MASK = 0, 1, 3
"""Places of the node's inputs."""
_BATCHED = 4
"""Axes of queries and keys that have one for the heads: (B, h, T, d)."""


class SilenceMaskedRows(ir.passes.InPlacePass):
    """Writes `Where(IsNaN(w), 0, w)` of the weights w under a mask as `Where(mask, w, 0)`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        silenced = [_silence(node) for node in model.graph.all_nodes() if node.op_type == "Where"]
        return ir.passes.PassResult(model, any(silenced))


def _silence(node: ir.Node) -> bool:
    asked, zero, weights = node.inputs
    mask = _mask_of(weights)
    is_nan = None if asked is None else asked.producer()
    if is_nan is None or is_nan.op_type != "IsNaN" or is_nan.inputs[0] is not weights or mask is None:
        return False
    if not _is_zero(zero):
        return False
    for place, value in enumerate((mask, weights, zero)):
        node.replace_input_with(place, value)
    return True


def _mask_of(weights: ir.Value | None) -> ir.Value | None:
    """The mask of attention weights, `Softmax(scores + Where(mask, 0, smallest))`; None if they are none.

    What a model's own code adds may say the opposite, `Where(mask, smallest, 0)`, or mask nothing.
    """
    softmax = _made_by(weights, "Softmax")
    added = None if softmax is None else _made_by(softmax.inputs[0], "Add")
    chosen = None if added is None else _made_by(added.inputs[1], "Where")
    if chosen is None or not _is_zero(chosen.inputs[1]) or not _is_smallest(chosen.inputs[2]):
        return None
    return chosen.inputs[0]


def _is_zero(value: ir.Value | None) -> bool:
    tensor = _number(value)
    return tensor is not None and not tensor.numpy().any()


def _is_smallest(value: ir.Value | None) -> bool:
    """Whether it is the smallest number of its type, or minus infinity."""
    tensor = _number(value)
    return tensor is not None and float(tensor.numpy().item()) <= float(tensor.dtype.min)


def _number(value: ir.Value | None) -> ir.TensorProtocol | None:
    """A constant of one element."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor if tensor is not None and tensor.size == 1 else None


def _made_by(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator else None


class WidenAttentionMasks(ir.passes.InPlacePass):
    """Expands every mask whose last two axes are not known to be those of the queries and keys."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        nodes = [
            node
            for node in model.graph.all_nodes()
            if node.op_type == "Attention" and len(node.inputs) > _MASK and node.inputs[_MASK] is not None
        ]
        widened = [_widen(model.graph, node) for node in nodes]
        return ir.passes.PassResult(model, any(widened))


def _widen(graph: ir.Graph, node: ir.Node) -> bool:
    query, key, mask = (node.inputs[place] for place in (_QUERY, _KEY, _MASK))
    assert query is not None
    assert key is not None
    assert mask is not None
    if mask.shape is None or query.shape is None or len(query.shape) != _BATCHED:
        return False
    wanted = [_size(query, 2), _size(key, 2)]
    if None not in wanted and [_size(mask, -2), _size(mask, -1)] == wanted:
        return False
    do = Builder(Names.of(graph), f"{mask.name}.wide")
    sizes = [do("Shape", [value], start=2, end=3) for value in (query, key)]
    shape = do("Concat", [do.integers(*[1] * (len(mask.shape) - 2)), *sizes], axis=0)
    wide = do("Expand", [mask, shape])
    wide.type = mask.type
    do.insert_before(node)
    node.replace_input_with(_MASK, wide)
    return True


def _size(value: ir.Value, axis: int) -> int | str | None:
    """A size, the name of a dynamic one, or None."""
    assert value.shape is not None
    size = value.shape[axis]
    return size if isinstance(size, int) else size.value

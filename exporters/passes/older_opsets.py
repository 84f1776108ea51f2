"""Mends what PyTorch's exporter and onnxscript's optimizer write without regard to an older opset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

_SPLIT_COUNTS = 18
"""The opset in which Split got its attribute `num_outputs`."""


def mend(model: onnx_ir.Model) -> None:
    """Take the attribute `num_outputs` off the Split nodes of a graph that is older than the attribute, in place.

    Before, a Split without sizes had equal parts; where the last is smaller, the sizes are given.
    """
    if (model.opset_imports.get("") or _SPLIT_COUNTS) >= _SPLIT_COUNTS:
        return
    for node in model.graph.all_nodes():
        if node.op_type == "Split" and node.attributes.pop("num_outputs", None) is not None:
            _give_sizes(model.graph, node)


def _give_sizes(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    import onnx_ir as ir

    value, count = node.inputs[0], len(node.outputs)
    axis = node.attributes.get_int("axis", 0)
    size = None if value is None or value.shape is None else value.shape[axis]
    if not isinstance(size, int) or size % count == 0:
        return
    each = -(-size // count)
    sizes = ir.Value(
        name=f"{node.outputs[0].name}.sizes",
        const_value=ir.tensor([each] * (count - 1) + [size - each * (count - 1)], ir.DataType.INT64),
    )
    graph.register_initializer(sizes)
    node.resize_inputs(2)
    node.replace_input_with(1, sizes)

"""Leaves out initial states that are zero, which is the default; phone runtimes stumble over such constants."""

from __future__ import annotations

import onnx_ir as ir

from compressor.onnx_graphs.recurrent_node import OPERATORS, PLACES

_STATES = (PLACES["h"], PLACES["c"])
_MOVES_VALUES = ("Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Cast")
"""Operators that give nothing but values of their first input."""


class DropZeroStates(ir.passes.InPlacePass):
    """Removes the inputs of recurrent nodes that are known to be zero, and inputs that are left out at the end."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        changed = [_drop(node) for node in model.graph.all_nodes() if node.op_type in OPERATORS]
        return ir.passes.PassResult(model, any(changed))


def _drop(node: ir.Node) -> bool:
    before = node.inputs
    for place in _STATES:
        if place < len(node.inputs) and _is_zero(node.inputs[place]):
            node.replace_input_with(place, None)
    used = [place for place, value in enumerate(node.inputs) if value is not None]
    node.resize_inputs(used[-1] + 1)
    return node.inputs != before


def _is_zero(value: ir.Value | None) -> bool:
    """Whether every element of a value is known to be 0."""
    if value is None:
        return False
    if value.const_value is not None:
        return not value.const_value.numpy().any()
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        filling = node.attributes.get("value")
        return filling is None or not filling.as_tensor().numpy().any()
    if node.op_type == "Concat":
        return all(_is_zero(part) for part in node.inputs)
    return node.op_type in _MOVES_VALUES and _is_zero(node.inputs[0])

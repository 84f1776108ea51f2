"""Writes Split for opsets in which it has no attribute `num_outputs`.

PyTorch's exporter and onnxscript's optimizer write the attribute in any opset.
"""

from __future__ import annotations

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names

FIRST_WITH_COUNTS = 18
"""The opset in which Split got the attribute."""


class GiveSplitsSizes(ir.passes.InPlacePass):
    """Removes the attribute; parts are equal without it, and if the last one is smaller, the sizes are given."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        splits = [
            node
            for node in model.graph.all_nodes()
            if node.op_type == "Split" and node.attributes.pop("num_outputs", None) is not None
        ]
        for node in splits:
            _give_sizes(model.graph, node)
        return ir.passes.PassResult(model, bool(splits))


def _give_sizes(graph: ir.Graph, node: ir.Node) -> None:
    value, count = node.inputs[0], len(node.outputs)
    axis = node.attributes.get_int("axis", 0)
    size = None if value is None or value.shape is None else value.shape[axis]
    if not isinstance(size, int) or size % count == 0:
        return
    each = -(-size // count)
    do = Builder(Names.of(graph), f"{node.outputs[0].name}.sizes")
    sizes = do.integers(*[each] * (count - 1), size - each * (count - 1))
    do.insert_before(node)
    node.resize_inputs(2)
    node.replace_input_with(1, sizes)

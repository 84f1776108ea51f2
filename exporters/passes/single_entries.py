"""Writes `y[arange, lengths - 1]` of one sample and position, as in a step, as a Squeeze, which ncnn knows too."""

from __future__ import annotations

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names, replace


class SqueezeSingleEntries(ir.passes.InPlacePass):
    """Replaces a GatherND of one constant place from axes of size 1."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        gathers = [node for node in model.graph if node.op_type == "GatherND"]
        replaced = [_squeeze(model.graph, node) for node in gathers]
        return ir.passes.PassResult(model, any(replaced))


def _squeeze(graph: ir.Graph, node: ir.Node) -> bool:
    data, index = node.inputs
    places = None if index is None or index.const_value is None else index.const_value.numpy()
    if node.attributes.get_int("batch_dims", 0) or data is None or data.shape is None:
        return False
    if places is None or places.ndim != 2 or len(places) != 1:
        return False
    depth = places.shape[1]
    if depth < 2 or any(size != 1 for size in list(data.shape)[:depth]):
        return False
    do = Builder(Names.of(graph), f"{node.outputs[0].name}.axes")
    replace(node, do, [do("Squeeze", [data, do.integers(*range(1, depth))])])
    return True

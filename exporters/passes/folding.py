"""Computes what is constant, with the rewriting rules of onnxscript's optimizer."""

from __future__ import annotations

import onnx_ir as ir

_NO_LIMIT = 2**62
"""With the optimizer's own limits, products of large weights would be computed in every run."""


class FoldConstants(ir.passes.InPlacePass):
    """Folds constants of any size, inlines functions and drops what nothing uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        from onnxscript import optimizer

        before = _operations(model)
        optimizer.optimize_ir(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT, should_fold=_should_fold)
        return ir.passes.PassResult(model, _operations(model) != before)


def _should_fold(node: ir.Node) -> bool | None:
    """Fold a Linear layer's transposed weight at any size, but not if the weight is used untransposed as well."""
    if node.op_type != "Transpose" or node.inputs[0] is None:
        return None
    return all(use.node.op_type == "Transpose" for use in node.inputs[0].uses())


def _operations(model: ir.Model) -> list[tuple[object, ...]]:
    return [(node.op_type, *node.inputs, *node.outputs) for node in model.graph.all_nodes()]

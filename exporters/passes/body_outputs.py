"""Gives every output of a loop's body or a branch a node of that body.

ONNX wants it so. Where an `Identity` handed on a value from outside, its elimination leaves an output without a node:
the branch of an `If` that returns what was computed in front of it, as PyTorch writes `EmbeddingBag` with a mean.
"""

from __future__ import annotations

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names


class GiveBodyOutputsNodes(ir.passes.InPlacePass):
    """Adds an `Identity` for each such output."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        added = 0
        for body in list(model.graph.subgraphs()):
            for place, output in enumerate(body.outputs):
                producer = output.producer()
                if producer is not None and producer.graph is body:
                    continue
                do = Builder(Names.of(model.graph), f"{output.name}.out")
                copy = do("Identity", [output])
                copy.type, copy.shape = output.type, output.shape
                body.extend(do.nodes)
                body.outputs[place] = copy
                added += 1
        return ir.passes.PassResult(model, bool(added))

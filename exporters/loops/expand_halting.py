"""Replaces the placeholders of halting layers by ONNX `Loop` operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, replace
from exporters.capture.halting import DOMAIN, PLACEHOLDER, LoopBody
from exporters.loops.capture import translate_module
from exporters.loops.expand import adopt

if TYPE_CHECKING:
    from torch import nn

_STATES = 2
"""x, and who goes on."""


class ExpandHalting(ir.passes.InPlacePass):
    """Replaces the placeholder of every halting layer by a `Loop`: at most n steps, while any sample goes on."""

    def __init__(self, model: nn.Module, opset: int) -> None:
        """For the graph of a prepared model that was traced."""
        super().__init__()
        self._model, self._opset = model, opset

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        placeholders = [node for node in model.graph if node.domain == DOMAIN and node.op_type == PLACEHOLDER]
        for number, node in enumerate(placeholders):
            self._expand(model.graph, node, f"halting_{number}")
        if not any(node.domain == DOMAIN for node in model.graph):
            model.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, bool(placeholders))

    def _expand(self, graph: ir.Graph, node: ir.Node, prefix: str) -> None:
        name = node.attributes["layer"].as_string()
        module = LoopBody(self._model.get_submodule(name)).eval()  # type: ignore[arg-type]
        body = translate_module(module, self._opset, f"a step of `{name}`").graph
        names = adopt(graph, body, prefix, node.inputs[_STATES:])
        number = ir.Value(name=f"{prefix}.number", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
        before = ir.Value(name=f"{prefix}.before", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        body.inputs.insert(0, number)
        body.inputs.insert(1, before)
        do = Builder(names, prefix)
        most = do.constant(np.array(node.attributes["steps"].as_int(), np.int64), f"{prefix}.steps")
        states = list(node.inputs[:_STATES])
        settled = do.several("Loop", [most, None, *states], _STATES, name=prefix, attributes={"body": body})
        replace(node, do, settled)

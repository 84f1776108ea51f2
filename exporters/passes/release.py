"""Graphs of onnx-ir as messages, without a second copy of their weights that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import onnx


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The graph as a message; `model` has no weights afterwards.

    Nodes and values refer to each other. So a graph that nobody holds stays with all of its weights until garbage is
    collected, which Python does seldom in a process with as many objects as PyTorch has.
    """
    proto: onnx.ModelProto = ir.to_proto(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            value.const_value = None
    return proto

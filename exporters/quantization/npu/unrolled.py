"""Recurrent nodes of a float graph as plain operations, and where their matrices went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.onnx_graphs.recurrent_node import PLACES
from compressor.onnx_graphs.unrolling import recurrent
from exporters.quantization.npu.graphs import inferred, name_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx


@dataclass(frozen=True)
class Plain:
    """A float graph in which recurrent nodes were unrolled."""

    proto: onnx.ModelProto
    pieces: Mapping[str, tuple[str, recurrent.Piece]]
    """Name of a constant -> the matrix of which it is a part, and which part."""
    layers: Mapping[str, str]
    """Name of a new node -> the recurrent matrix of its layer."""
    roles: Mapping[str, str]
    """Name of a value at one position -> what it is at every position."""


def unrolled(proto: onnx.ModelProto, static: Collection[str]) -> Plain:
    """Write recurrent nodes with a matrix in `static` as plain operations."""
    proto = inferred(proto)
    name_nodes(proto, "made")
    model = ir.from_proto(proto)
    pieces: dict[str, tuple[str, recurrent.Piece]] = {}
    layers: dict[str, str] = {}
    roles: dict[str, str] = {}
    for node in list(model.graph):
        names = [str(value.name) if value is not None else "" for value in node.inputs]
        if node.op_type in RECURRENT and not set(static).isdisjoint(names):
            unrolled_node = recurrent.unroll(model.graph, node)
            pieces |= {piece.name: (names[piece.place], piece) for piece in unrolled_node.pieces}
            layers |= {str(new.name): names[PLACES["R"]] for new in unrolled_node.nodes}
            roles |= unrolled_node.roles
    RemoveUnusedNodesPass()(model)
    return Plain(inferred(ir.to_proto(model)), pieces, layers, roles)

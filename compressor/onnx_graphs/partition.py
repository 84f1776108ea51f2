"""Splits a graph into what a target takes and what it does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.onnx_graphs import walk
from compressor.onnx_graphs.targets import RELU_RNN, RNN_WITH_STATE, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

OPEN_SIZE = "the size of an input is open"
VARIABLE_WEIGHT = "its second input is not constant"
"""Reasons of refusals."""
TOO_NEW = "written in opset"
"""Part of the reason if the opset of the file is too new."""
_FREE = ("Constant",)
"""Nodes that cost a runtime nothing."""


@dataclass(frozen=True)
class Refusal:
    """Nodes of one operator that are not taken, for one reason."""

    operator: str
    reason: str
    count: int
    nodes: tuple[str, ...]
    """Their names."""


@dataclass(frozen=True)
class Partition:
    """What a target takes of a graph."""

    nodes: int
    taken: int
    partitions: int
    """Stretches of nodes that are taken, one after the other in the order of the graph, each a hand-over to and from
    the CPU."""
    refusals: tuple[Refusal, ...]
    caveats: Mapping[str, str]
    """Operator that is taken -> a condition of the table that was not checked."""


def survey(proto: onnx.ModelProto, target: Target) -> Partition:
    """What `target` takes of a graph; the bodies of control flow count with their node."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    shapes = _shapes(inferred.graph)
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    nodes = [node for node in proto.graph.node if node.op_type not in _FREE]
    reasons = [(node, _reason(node, target, shapes, constants)) for node in nodes]
    opset = walk.opset(proto)
    if target.largest_opset is not None and opset > target.largest_opset:
        too_new = f"the file is {TOO_NEW} {opset}, and {target.largest_opset} is the last that was seen to work"
        reasons = [(node, reason or too_new) for node, reason in reasons]
    taken = [not reason for _, reason in reasons]
    grouped: dict[tuple[str, str], list[str]] = {}
    for node, reason in reasons:
        if reason:
            name = node.name or next(filter(None, node.output), "")
            grouped.setdefault((walk.operator(node), reason), []).append(name)
    used = Counter(walk.operator(node) for node, reason in reasons if not reason)
    return Partition(
        nodes=len(reasons),
        taken=sum(taken),
        partitions=sum(now and not before for before, now in zip([False, *taken], taken, strict=False)),
        refusals=tuple(
            Refusal(operator, reason, len(names), tuple(names))
            for (operator, reason), names in sorted(grouped.items(), key=lambda item: -len(item[1]))
        ),
        caveats={operator: note for operator, note in target.caveats.items() if used[operator]},
    )


def _has_relu(node: onnx.NodeProto) -> bool:
    activations = [attribute for attribute in node.attribute if attribute.name == "activations"]
    return any(word.lower() == b"relu" for attribute in activations for word in attribute.strings)


def _kinds(node: onnx.NodeProto) -> list[str]:
    """What a table of failures may call a node."""
    kinds = [walk.operator(node)]
    if node.op_type == "RNN" and _has_relu(node):
        kinds.append(RELU_RNN)
    if node.op_type == "RNN" and len(node.input) > 5 and node.input[5]:
        kinds.append(RNN_WITH_STATE)
    return kinds


def _reason(
    node: onnx.NodeProto, target: Target, shapes: Mapping[str, tuple[int | None, ...]], constants: set[str]
) -> str:
    """Why a node is not taken; empty if it is."""
    operator = walk.operator(node)
    for kind in _kinds(node):
        if kind in target.fails:
            return target.fails[kind]
    if target.takes is not None and operator not in target.takes:
        return "the operator is not in the table"
    if target.fixed_shapes:
        for value in node.input:
            if value and value not in constants and None in shapes.get(value, (None,)):
                return OPEN_SIZE
    if operator in target.constant_weights and len(node.input) > 1 and node.input[1] not in constants:
        return VARIABLE_WEIGHT
    return ""


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Name of a value -> its sizes, None for an open one."""
    return {
        value.name: tuple(
            dimension.dim_value if dimension.HasField("dim_value") else None
            for dimension in value.type.tensor_type.shape.dim
        )
        for body in walk.graphs(graph)
        for value in (*body.input, *body.output, *body.value_info)
        if value.type.tensor_type.HasField("shape")
    }

"""Splits a graph into what a target takes and what it does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.onnx_graphs import walk
from compressor.onnx_graphs.targets import RELU_RNN, RNN_WITH_STATE, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

_FREE = ("Constant",)
"""Nodes that are no work for anybody."""


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
    reasons: list[tuple[onnx.NodeProto, str]] = []
    for node in proto.graph.node:
        if node.op_type not in _FREE:
            reasons.append((node, _reason(node, target, shapes, constants)))
    opset = walk.opset(proto)
    if target.largest_opset is not None and opset > target.largest_opset:
        too_new = f"the file is written in opset {opset}, and {target.largest_opset} is the last that was seen to work"
        reasons = [(node, reason or too_new) for node, reason in reasons]
    taken = [not reason for _, reason in reasons]
    grouped: dict[tuple[str, str], list[str]] = {}
    for node, reason in reasons:
        if reason:
            grouped.setdefault((walk.operator(node), reason), []).append(node.name or node.output[0])
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


def is_relu(node: onnx.NodeProto) -> bool:
    """Whether a node is an `RNN` with relu."""
    given = [attribute for attribute in node.attribute if attribute.name == "activations"]
    return node.op_type == "RNN" and any(word.lower() == b"relu" for attribute in given for word in attribute.strings)


def _starts_somewhere(node: onnx.NodeProto) -> bool:
    """Whether a node is an `RNN` that is given its initial state."""
    return node.op_type == "RNN" and len(node.input) > 5 and bool(node.input[5])


def _reason(
    node: onnx.NodeProto, target: Target, shapes: Mapping[str, tuple[int | None, ...]], constants: set[str]
) -> str:
    """Why a node is not taken; empty where it is."""
    name = walk.operator(node)
    kinds = [name, *([RELU_RNN] if is_relu(node) else []), *([RNN_WITH_STATE] if _starts_somewhere(node) else [])]
    for kind in kinds:
        if kind in target.fails:
            return target.fails[kind]
    if target.takes is not None and name not in target.takes:
        return "the operator is not in the table"
    if target.fixed_shapes:
        for value in node.input:
            if value and value not in constants and None in shapes.get(value, (None,)):
                return "the size of an input is open"
    if name in target.constant_weights and len(node.input) > 1 and node.input[1] not in constants:
        return "its second input is no constant"
    return ""


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Name of a value -> its sizes, None where one is open."""
    return {
        value.name: tuple(
            dimension.dim_value if dimension.HasField("dim_value") else None
            for dimension in value.type.tensor_type.shape.dim
        )
        for value in _values(graph)
        if value.type.tensor_type.HasField("shape")
    }


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for body in walk.graphs(graph):
        yield from (*body.input, *body.output, *body.value_info)

"""The nodes of an ONNX graph as protobuf messages, with those in the bodies of control flow.

A graph of onnx-ir needs no walker of ours: it has `all_nodes()`, and a value knows its producer and its uses.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node runs: the body of a `Scan` or `Loop`, the branches of an `If`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and the bodies of its control flow, all levels."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def with_bodies(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node and all nodes in its bodies."""
    yield node
    for body in bodies(node):
        yield from nodes(body)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph in order, each followed by those in its bodies."""
    for node in graph.node:
        yield from with_bodies(node)


def nodes_of_model(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model: those of its graph, then those of its functions."""
    yield from nodes(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from with_bodies(node)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, with those that its bodies read, inside or outside of themselves."""
    for inner in with_bodies(node):
        yield from inner.input
        for body in bodies(inner):
            yield from (value.name for value in body.output)


def writers(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    """Name of a value -> the node of this graph that computes it."""
    return {name: node for node in graph.node for name in node.output if name}


def readers(graph: onnx.GraphProto) -> Mapping[str, Sequence[onnx.NodeProto]]:
    """Name of a value -> the nodes of this graph that read it, without those inside of bodies."""
    by_name: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            by_name[name].append(node)
    return by_name


def operator(node: onnx.NodeProto) -> str:
    """The type of a node, with its domain unless that is ONNX's own: `Conv`, `com.microsoft:MatMulNBits`."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}:{node.op_type}"


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 if the file names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)

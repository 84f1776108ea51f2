"""Splits a graph into what a target takes and what it does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.onnx_graphs import walk
from compressor.onnx_graphs.node_facts import GraphFacts, NodeFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from compressor.onnx_graphs.targets import Target

OPEN_SIZE = "the size of an input is open"
"""A reason of refusals."""
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
    graph = GraphFacts.of(proto)
    nodes = [node for node in proto.graph.node if node.op_type not in _FREE]
    reasons = [(node, _reason(NodeFacts(node, graph), target)) for node in nodes]
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


def _reason(node: NodeFacts, target: Target) -> str:
    """Why a node is not taken; empty if it is."""
    operator = walk.operator(node.node)
    for failure in target.fails:
        if failure.applies(node):
            return failure.happens
    if target.takes is not None and operator not in target.takes:
        return "the operator is not in the table"
    if target.fixed_shapes:
        for value in node.node.input:
            if value and value not in node.graph.constants and None in node.graph.shapes.get(value, (None,)):
                return OPEN_SIZE
    return next(filter(None, (rule(node) for rule in (*target.every, *target.rules.get(operator, ())))), "")

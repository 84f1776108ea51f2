"""What makes a target take more of a graph: fixed shapes, and plain operations for nodes that it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.onnx_graphs import plain, recurrent_node, walk
from compressor.onnx_graphs.axes import fix_axes, open_axes
from compressor.onnx_graphs.partition import OPEN_SIZE, TOO_NEW, Partition, Refusal, survey
from compressor.onnx_graphs.rules import COMPUTED_WEIGHT
from compressor.onnx_graphs.simplify import LOWERED_OPSET, check, lowered, simplify
from compressor.onnx_graphs.unrolling import recurrent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    import onnx_ir as ir

    from compressor.onnx_graphs.targets import Target

_WRITTEN_WITH = {**plain.OPERATORS, **recurrent.OPERATORS}
"""Operator -> those that replace it."""
_ADVICE = {
    OPEN_SIZE: "fix the shapes: --fix --shape AXIS=SIZE, or `shapes` in the recipe",
    **dict.fromkeys(
        recurrent.OPERATORS,
        "plain operations for a fixed length: --fix; or a step file (`stream: true` in the recipe)",
    ),
    **dict.fromkeys(plain.OPERATORS, "plain operations: --fix"),
    "Scan": "export a step file (`stream: true` in the recipe): it has no loop",
    **dict.fromkeys(
        ("Shape", "Range", "Expand", "ConstantOfShape", "Cast"),
        "these compute shapes: with fixed shapes (--fix) they are gone",
    ),
    COMPUTED_WEIGHT: "none: attention multiplies what it computed; it runs on the CPU",
}
"""Reason or operator of a refusal -> what to do."""


@dataclass(frozen=True)
class Remedy:
    """What can be done, or was done."""

    name: str
    what: str
    count: int
    applied: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Fixed:
    """A graph after all remedies."""

    proto: onnx.ModelProto
    remedies: tuple[Remedy, ...]
    shapes: Mapping[str, int]
    """The sizes at which axes were fixed."""


def advise(target: Target, partition: Partition) -> dict[tuple[str, str], str]:
    """Operator and reason of each refusal -> the remedy; empty if none is known."""
    return {
        (refusal.operator, refusal.reason): _advice(target, refusal.operator, refusal.reason)
        for refusal in partition.refusals
    }


def _advice(target: Target, operator: str, reason: str) -> str:
    if operator in _WRITTEN_WITH and _not_taken(target, operator):
        return ""
    if TOO_NEW in reason:
        return f"lower the opset: --fix, or `opset: {LOWERED_OPSET}` in the recipe"
    words = (reason, operator) if reason == OPEN_SIZE else (operator, reason)
    return next((_ADVICE[word] for word in words if word in _ADVICE), "")


def fix(proto: onnx.ModelProto, target: Target, shapes: Mapping[str, int]) -> Fixed:
    """Apply every remedy that a target's refusals call for.

    Args:
        proto: The graph, with its weights; it is not changed.
        target: The runtime or accelerator that is to take more of it.
        shapes: Sizes of open axes, by name; the others get those of `open_axes`.

    Raises:
        UsageError: `shapes` names an axis that is not open.
        ExportError: The result is not valid ONNX.
    """
    import onnx
    import onnx_ir as ir

    sizes = open_axes(proto)
    unknown = sorted(set(shapes) - set(sizes))
    if unknown:
        raise UsageError(
            f"`{unknown[0]}` is not an open axis of the file, which has {', '.join(sizes) or 'none'}",
            hint="give --shape AXIS=SIZE with one of these names",
        )
    sizes |= shapes
    remedies: list[Remedy] = []
    work = onnx.ModelProto()
    work.CopyFrom(proto)
    refusals = [refusal for refusal in survey(proto, target).refusals if not _lies_elsewhere(refusal)]
    loops = any(refusal.operator in recurrent_node.OPERATORS for refusal in refusals)
    fixed = bool(sizes) and (target.fixed_shapes or loops)
    if fixed:
        fix_axes(work, sizes)
        text = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        remedies.append(Remedy("fixed shapes", text, len(sizes), applied=True))
    model = ir.from_proto(work)
    simplify(model)
    remedies += _replace_refused(model, target)
    simplify(model)
    result = ir.to_proto(model)
    opset = walk.opset(result)
    if target.largest_opset is not None and opset > target.largest_opset:
        what, lower = f"opset {opset} to {LOWERED_OPSET}", lowered(result)
        if isinstance(lower, str):
            remedies.append(Remedy("opset lowered", what, 1, why_not=lower))
        else:
            result = lower
            remedies.append(Remedy("opset lowered", what, 1, applied=True))
    check(result)
    return Fixed(result, tuple(remedies), sizes if fixed else {})


def _lies_elsewhere(refusal: Refusal) -> bool:
    """Whether the remedy of a refusal lies in the shapes or the opset of the graph, and not in the node."""
    return refusal.reason == OPEN_SIZE or TOO_NEW in refusal.reason


def _replace_refused(model: ir.Model, target: Target) -> list[Remedy]:
    """Write refused nodes as plain operations, in place."""
    import onnx_ir as ir

    refusals = survey(ir.to_proto(model), target).refusals
    refused = {name for refusal in refusals if not _lies_elsewhere(refusal) for name in refusal.nodes}
    replaced: Counter[str] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for node in list(model.graph):
        if node.name not in refused or node.op_type not in _WRITTEN_WITH:
            continue
        is_recurrent = node.op_type in recurrent_node.OPERATORS
        name = f"{'recurrent nodes' if is_recurrent else node.op_type} as plain operations"
        why_not = _not_taken(target, node.op_type) or _write_plainly(model.graph, node)
        if why_not:
            failed[name, f"{node.op_type}: {why_not}"] += 1
        else:
            replaced[name] += 1
    return [
        *(Remedy(name, _nodes(count), count, applied=True) for name, count in replaced.items()),
        *(Remedy(name, _nodes(count), count, why_not=why) for (name, why), count in failed.items()),
    ]


def _write_plainly(graph: ir.Graph, node: ir.Node) -> str:
    """Replace a node by plain operations; gives why it cannot be, empty if it was."""
    if node.op_type in plain.OPERATORS:
        return plain.write_plainly(graph, node)
    why_not = recurrent.obstacle(node)
    if not why_not:
        recurrent.unroll(graph, node)
    return why_not


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _not_taken(target: Target, operator: str) -> str:
    """Why plain operations would not help; empty if they do."""
    missing = sorted(_WRITTEN_WITH[operator] - target.takes) if target.takes is not None else []
    return f"{target.name} would not take {missing[0]} either" if missing else ""

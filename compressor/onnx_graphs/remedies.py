"""What makes a target take more of a graph: fixed shapes, and plain operations for nodes that it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError, UsageError
from compressor.onnx_graphs import unrolled_nodes, walk
from compressor.onnx_graphs.axes import fix_axes, open_axes
from compressor.onnx_graphs.partition import Partition, Refusal, survey
from compressor.onnx_graphs.targets import RECURRENT, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    import onnx_ir

LOWERED_OPSET = 18
_OPEN = "the size of an input is open"


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


def advise(proto: onnx.ModelProto, target: Target, found: Partition) -> dict[tuple[str, str], str]:
    """Operator and reason of each refusal -> the remedy; empty where none is known."""
    advice = {}
    for refusal in found.refusals:
        operator = refusal.operator
        if operator in _MADE and _not_taken(target, operator):
            text = ""
        elif refusal.reason == _OPEN:
            text = "fix the shapes: --fix --shape AXIS=SIZE, or `shapes` in the recipe"
        elif "opset" in refusal.reason:
            text = f"lower the opset: --fix, or `opset: {LOWERED_OPSET}` in the recipe"
        elif operator in RECURRENT:
            text = "plain operations for a fixed length: --fix; or a step file (`stream: true` in the recipe)"
        elif operator in _PLAIN:
            text = "plain operations: --fix"
        elif operator == "Scan":
            text = "export a step file (`stream: true` in the recipe): it has no loop"
        elif operator in ("Shape", "Range", "Expand", "ConstantOfShape", "Cast"):
            text = "these compute shapes: they are gone where the shapes are fixed (--fix)"
        elif refusal.reason == "its second input is no constant":
            text = "none: attention multiplies what it computed; it runs on the CPU"
        else:
            text = ""
        advice[operator, refusal.reason] = text
    return advice


def fix(proto: onnx.ModelProto, target: Target, shapes: Mapping[str, int]) -> Fixed:
    """Apply every remedy that a target's refusals call for.

    Args:
        proto: The graph, with its weights.
        target: For whom.
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
            f"`{unknown[0]}` is no open axis of the file, which has {', '.join(sizes) or 'none'}",
            hint="give --shape AXIS=SIZE with one of these names",
        )
    before = survey(proto, target)
    sizes |= shapes
    remedies: list[Remedy] = []
    work = onnx.ModelProto()
    work.CopyFrom(proto)
    loops = any(refusal.operator in RECURRENT and not _elsewhere(refusal) for refusal in before.refusals)
    fixed = bool(sizes) and (target.fixed_shapes or loops)
    if fixed:
        fix_axes(work, sizes)
        text = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        remedies.append(Remedy("fixed shapes", text, len(sizes), applied=True))
    model = ir.from_proto(work)
    _simplify(model)
    refused = _refused(model, target)
    remedies += _replace(model, refused, target)
    _simplify(model)
    result = ir.to_proto(model)
    opset = walk.opset(result)
    if target.largest_opset is not None and opset > target.largest_opset:
        result, remedy = _lowered(result, opset)
        remedies.append(remedy)
    _check(result)
    return Fixed(result, tuple(remedies), sizes if fixed else {})


def _refused(model: onnx_ir.Model, target: Target) -> list[str]:
    """Names of the outputs of nodes that are refused, whose remedy does not lie in the shapes."""
    import onnx_ir as ir

    proto = ir.to_proto(model)
    found = survey(proto, target)
    names = {name for refusal in found.refusals if not _elsewhere(refusal) for name in refusal.nodes}
    return [node.output[0] for node in proto.graph.node if (node.name or node.output[0]) in names]


def _elsewhere(refusal: Refusal) -> bool:
    """Whether the remedy of a refusal lies in the shapes or the opset of the graph."""
    return refusal.reason == _OPEN or "opset" in refusal.reason


def _replace(model: onnx_ir.Model, refused: list[str], target: Target) -> list[Remedy]:
    """Plain operations in the place of refused nodes, in place."""
    done: dict[str, int] = {}
    failed: dict[tuple[str, str], int] = {}
    for node in list(model.graph):
        if not node.outputs or _first_name(node) not in refused:
            continue
        if node.op_type in RECURRENT:
            name, obstacle = "recurrent nodes as plain operations", _not_taken(target, node.op_type)
            obstacle = obstacle or unrolled_nodes.obstacle(node)
            if not obstacle:
                unrolled_nodes.unroll(model.graph, node)
        elif node.op_type in _PLAIN:
            name, obstacle = f"{node.op_type} as plain operations", _not_taken(target, node.op_type)
            obstacle = obstacle or _PLAIN[node.op_type](model.graph, node)
        else:
            continue
        if obstacle:
            failed[name, f"{node.op_type}: {obstacle}"] = failed.get((name, f"{node.op_type}: {obstacle}"), 0) + 1
        else:
            done[name] = done.get(name, 0) + 1
    return [
        *(Remedy(name, _nodes(count), count, applied=True) for name, count in done.items()),
        *(Remedy(name, _nodes(count), count, why_not=why) for (name, why), count in failed.items()),
    ]


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _not_taken(target: Target, operator: str) -> str:
    """Why plain operations would not help; empty where they do."""
    missing = sorted(_MADE[operator] - target.takes) if target.takes is not None else []
    return f"{target.name} would not take {missing[0]} either" if missing else ""


def _first_name(node: onnx_ir.Node) -> str:
    return str(next((value.name for value in node.outputs if value.name), ""))


def _simplify(model: onnx_ir.Model) -> None:
    """Infer shapes, fold what is constant, drop what nothing uses, in place."""
    import logging

    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        optimizer.optimize_ir(model, input_size_limit=2**31 - 1, output_size_limit=2**31 - 1, onnx_shape_inference=True)
        for graph_pass in (
            passes.CommonSubexpressionEliminationPass(),
            passes.DeduplicateInitializersPass(size_limit=2**31 - 1),
            passes.RemoveUnusedNodesPass(),
            passes.ShapeInferencePass(),
        ):
            graph_pass(model)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(proto: onnx.ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(
            f"the changed graph is not valid ONNX: {first}", hint="check without --fix, and change the model instead"
        ) from error


def _lowered(proto: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, Remedy]:
    import onnx

    what = f"opset {opset} to {LOWERED_OPSET}"
    try:
        lower = onnx.version_converter.convert_version(proto, LOWERED_OPSET)
    except Exception as error:  # ONNX's converter raises RuntimeError and others of its own
        why = str(error).strip().splitlines()[0]
        return proto, Remedy("opset lowered", what, 1, why_not=f"onnx cannot convert it: {why}")
    return lower, Remedy("opset lowered", what, 1, applied=True)


# --- plain operations ---


class _Place:
    """Collects nodes in front of one that they stand for."""

    def __init__(self, graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
        self.graph, self.node = graph, node
        self._count = 0

    def __call__(self, operator: str, inputs: list[Any], **attributes: Any) -> Any:
        import onnx_ir as ir

        made = ir.node(operator, inputs, attributes, name=f"{_first_name(self.node)}.plain.{self._count}")
        made.outputs[0].name = f"{made.name}.0"
        self._count += 1
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def constant(self, array: Any) -> onnx_ir.Value:
        import onnx_ir as ir

        value = ir.Value(name=f"{_first_name(self.node)}.plain.{self._count}", const_value=ir.tensor(array))
        self._count += 1
        self.graph.register_initializer(value)
        return value

    def done(self, result: onnx_ir.Value) -> None:
        """Give the node's first output to everybody who used it, and remove the node."""
        import onnx_ir as ir

        old = self.node.outputs[0]
        result.shape, result.type = old.shape, old.type
        if old.is_graph_output():
            result.name = old.name
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)


def _used_beside_the_first(node: onnx_ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _mean(do: _Place, x: onnx_ir.Value, axes: list[int]) -> Any:
    if (do.graph.opset_imports.get("") or 0) >= 18:
        return do("ReduceMean", [x, do.constant(np.array(axes, np.int64))], keepdims=1)
    return do("ReduceMean", [x], axes=axes, keepdims=1)


def _layer_norm(graph: onnx_ir.Graph, node: onnx_ir.Node) -> str:
    """(x - mean) / sqrt(mean of its square + epsilon) * scale + bias."""
    x, scale = node.inputs[0], node.inputs[1]
    assert x is not None
    if x.shape is None or x.dtype is None or _used_beside_the_first(node):
        return "its shape is not known, or its mean is used"
    axis, rank = node.attributes.get_int("axis", -1), len(x.shape)
    axes = list(range(axis % rank, rank))
    do = _Place(graph, node)
    dtype = x.dtype.numpy()
    centred = do("Sub", [x, _mean(do, x, axes)])
    variance = _mean(do, do("Mul", [centred, centred]), axes)
    guard = do.constant(np.array(node.attributes.get_float("epsilon", 1e-5), dtype))
    result = do("Mul", [do("Div", [centred, do("Sqrt", [do("Add", [variance, guard])])]), scale])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    do.done(result if bias is None else do("Add", [result, bias]))
    return ""


def _attention(graph: onnx_ir.Graph, node: onnx_ir.Node) -> str:
    """softmax(scale * Q K^T + mask) V of (B, h, T, d)."""
    query, key, value = node.inputs[:3]
    assert query is not None
    assert key is not None
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    special = [name for name in ("softcap", "is_causal", "qk_matmul_output_mode") if node.attributes.get(name)]
    numbers = [node.attributes[name].value for name in special]
    if query.shape is None or len(query.shape) != 4 or any(numbers) or any(node.inputs[4:]):
        return "it has a cache, a cap, a causal mask of its own or no axis of heads"
    if query.dtype is None or not isinstance(query.shape[3], int) or _used_beside_the_first(node):
        return "the width of its heads is not known"
    if key.shape is not None and len(key.shape) == 4 and key.shape[1] != query.shape[1]:
        return "its keys have fewer heads than its queries"
    do = _Place(graph, node)
    dtype = query.dtype.numpy()
    scale = node.attributes.get_float("scale", float(query.shape[3]) ** -0.5)
    scaled = do("Mul", [query, do.constant(np.array(scale, dtype))])
    scores = do("MatMul", [scaled, do("Transpose", [key], perm=[0, 1, 3, 2])])
    if mask is not None and mask.dtype is not None and mask.dtype.numpy() == np.bool_:
        scores = do("Where", [mask, scores, do.constant(np.array(-1e9, dtype))])
    elif mask is not None:
        scores = do("Add", [scores, mask])
    do.done(do("MatMul", [do("Softmax", [scores], axis=-1), value]))
    return ""


def _sum(graph: onnx_ir.Graph, node: onnx_ir.Node) -> str:
    """The mean times the number of what is summed."""
    x = node.inputs[0]
    assert x is not None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if x.shape is None or x.dtype is None or given is None or given.const_value is None:
        return "its axes are not constant"
    axes = [int(axis) for axis in given.const_value.numpy()]
    sizes = [x.shape[axis] for axis in axes]
    if not x.dtype.is_floating_point() or not axes or not all(isinstance(size, int) for size in sizes):
        return "its axes have no fixed size, or it sums whole numbers"
    do = _Place(graph, node)
    count = do.constant(np.array(np.prod([int(size) for size in sizes]), x.dtype.numpy()))  # type: ignore[arg-type]
    keep = node.attributes.get_int("keepdims", 1)
    if (graph.opset_imports.get("") or 0) >= 18:
        mean = do("ReduceMean", [x, do.constant(np.array(axes, np.int64))], keepdims=keep)
    else:
        mean = do("ReduceMean", [x], axes=axes, keepdims=keep)
    do.done(do("Mul", [mean, count]))
    return ""


def _pick(graph: onnx_ir.Graph, node: onnx_ir.Node) -> str:
    """A Slice of one, and a Squeeze where the index has no axis."""
    x, index = node.inputs[0], node.inputs[1]
    assert index is not None
    if index.const_value is None or index.const_value.size != 1:
        return "its indices are computed, or several"
    place, axis = int(index.const_value.numpy().reshape(())), node.attributes.get_int("axis", 0)
    end = place + 1 if place != -1 else np.iinfo(np.int64).max
    do = _Place(graph, node)
    bounds = [do.constant(np.array([number], np.int64)) for number in (place, end, axis)]
    one = do("Slice", [x, *bounds])
    do.done(do("Squeeze", [one, bounds[2]]) if index.const_value.shape.rank() == 0 else one)
    return ""


_PLAIN: dict[str, Any] = {
    "LayerNormalization": _layer_norm,
    "Attention": _attention,
    "ReduceSum": _sum,
    "Gather": _pick,
}
_MADE = {
    "LayerNormalization": frozenset({"Add", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"}),
    "Attention": frozenset({"MatMul", "Mul", "Softmax", "Transpose"}),
    "ReduceSum": frozenset({"Mul", "ReduceMean"}),
    "Gather": frozenset({"Slice"}),
    "RNN": unrolled_nodes.OPERATORS - {"Mul"},
    "GRU": unrolled_nodes.OPERATORS | {"Sigmoid", "Sub", "Tanh"},
    "LSTM": unrolled_nodes.OPERATORS | {"Sigmoid", "Tanh"},
}

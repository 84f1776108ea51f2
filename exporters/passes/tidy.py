"""Makes an ONNX graph small, plain and the same on every export, and checks it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from compressor.report import TensorInfo
from exporters.capture import factored_scan
from exporters.loops.expand import expand
from exporters.passes import attention_masks, external_data, older_opsets, shared_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx
    import onnx_ir

    from exporters.loops.scan import StepBody

    Axes = Mapping[str, Mapping[int, str]]

_NO_LIMIT = 2**62
_RECURRENT = ("RNN", "GRU", "LSTM")
_STATE_INPUTS = (5, 6)
"""Places of initial_h and, for the LSTM, initial_c."""
_MOVES_VALUES = ("Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Cast")
"""Operators that give nothing but values of their first input."""
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def tidy(
    model: onnx_ir.Model,
    bodies: Sequence[StepBody] = (),
    translate: Callable[[StepBody], onnx_ir.Model] | None = None,
) -> None:
    """Fold constants, merge equal initializers, drop what nothing uses and all debugging metadata, in place.

    Args:
        model: The graph.
        bodies: Of the loops that placeholders in it stand for.
        translate: Makes the graph of such a body.
    """
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    limit = _NO_LIMIT  # with the optimizer's own limits products of large weights would be left to every run
    optimizer.optimize_ir(model, input_size_limit=limit, output_size_limit=limit, should_fold=_should_fold)
    if translate is not None:
        expand(model, bodies, translate)
    older_opsets.mend(model)
    factored_scan.expand(model)
    attention_masks.widen(model)
    _drop_zero_states(model)
    _squeeze_only_entries(model)
    passes.IdentityEliminationPass()(model)
    passes.DeduplicateInitializersPass(size_limit=_NO_LIMIT)(model)
    shared_weights.share(model)
    for graph_pass in (
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.OutputFixPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        graph_pass(model)


def _should_fold(node: onnx_ir.Node) -> bool | None:
    """Fold a Linear layer's transposed weight at any size, but not where the weight is used untransposed as well."""
    if node.op_type != "Transpose" or node.inputs[0] is None:
        return None
    return all(use.node.op_type == "Transpose" for use in node.inputs[0].uses())


def _drop_zero_states(model: onnx_ir.Model) -> None:
    """Leave out initial states that are zero, which is the default; phone runtimes stumble over such constants."""
    for node in model.graph.all_nodes():
        if node.op_type not in _RECURRENT:
            continue
        for place in _STATE_INPUTS:
            if place < len(node.inputs) and _is_zero(node.inputs[place]):
                node.replace_input_with(place, None)
        used = [place for place, value in enumerate(node.inputs) if value is not None]
        node.resize_inputs(used[-1] + 1)


def _squeeze_only_entries(model: onnx_ir.Model) -> None:
    """`y[arange, lengths - 1]` of one sample and position, as in a step, becomes a Squeeze, which ncnn knows too."""
    import numpy as np
    import onnx_ir

    for node in list(model.graph):
        if node.op_type != "GatherND" or ("batch_dims" in node.attributes and node.attributes["batch_dims"].as_int()):
            continue
        data, index = node.inputs
        places = None if index is None or index.const_value is None else index.const_value.numpy()
        if data is None or data.shape is None or places is None or places.ndim != 2 or len(places) != 1:
            continue
        depth = places.shape[1]
        if depth < 2 or any(size != 1 for size in list(data.shape)[:depth]):
            continue
        name = f"{node.outputs[0].name}.axes"
        axes = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(np.arange(1, depth), name=name))
        model.graph.register_initializer(axes)
        squeeze = onnx_ir.node("Squeeze", [data, axes])
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [squeeze], list(node.outputs), list(squeeze.outputs)
        )


def _is_zero(value: onnx_ir.Value | None) -> bool:
    """True where every element of `value` is known to be 0."""
    if value is None:
        return False
    if value.const_value is not None:
        return not value.const_value.numpy().any()
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        filling = node.attributes.get("value")
        return filling is None or not filling.as_tensor().numpy().any()
    if node.op_type == "Concat":
        return all(_is_zero(part) for part in node.inputs)
    return node.op_type in _MOVES_VALUES and _is_zero(node.inputs[0])


def name_values(model: onnx_ir.Model, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Give the graph's inputs and outputs the task's names, in place; values inside that have such a name lose it."""
    graph = model.graph
    names = dict(zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True))
    taken = set(names.values())
    produced = (value for node in graph.all_nodes() for value in node.outputs)
    for value in (*graph.initializers.values(), *produced):
        if value not in names and value.name in taken:
            value.name = f"{value.name}.inner"
    for value, name in names.items():
        value.name = name


def to_proto(model: onnx_ir.Model, inputs: Axes, outputs: Axes, ir_version: int) -> onnx.ModelProto:
    """The graph as it goes into the file: dynamic axes under the task's names, no shapes of intermediate values."""
    import onnx_ir

    proto = onnx_ir.to_proto(model)
    proto.ir_version = ir_version
    for graph in walk.graphs(proto.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            value.ClearField("metadata_props")
    _name_axes(proto.graph, inputs, outputs)
    return proto


def _name_axes(graph: onnx.GraphProto, inputs: Axes, outputs: Axes) -> None:
    """Replace the tracer's symbols such as `s77` by the task's names, also within expressions such as `s77 // 2`."""
    names: dict[str, str] = {}
    for value in graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.HasField("dim_param"):
                name = inputs[value.name].get(axis, dimension.dim_param)
                names.setdefault(dimension.dim_param, name)
                dimension.dim_param = name
    for value in graph.output:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.HasField("dim_param"):
                given = outputs[value.name].get(axis)
                traced = _SYMBOL.sub(lambda symbol: names.get(symbol[0], symbol[0]), dimension.dim_param)
                dimension.dim_param = given or traced


def check(proto: onnx.ModelProto, opset: int, domains: Mapping[str, int] | None = None) -> None:
    """Run the ONNX checker and strict shape inference; raises `ExportError` with what they found.

    Args:
        proto: The file.
        opset: Version of the standard operators.
        domains: Other operator sets that it may use, and their versions; nothing but these.
    """
    import onnx

    found = {entry.domain: entry.version for entry in proto.opset_import}
    used = {node.domain for node in walk.nodes(proto.graph)} - set(walk.STANDARD)
    if found.get("") != opset or {*found.items()} - {("", opset), *(domains or {}).items()} or used - set(found):
        raise ExportError(
            f"the file needs the operator sets {found}, not opset {opset} alone", hint="try another opset, such as 18"
        )
    try:
        with external_data.small(proto) as path:
            onnx.checker.check_model(proto if path is None else str(path), full_check=True)
            onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(
            f"the exported graph is not valid ONNX: {first}", hint="try another opset, such as 18"
        ) from error


def operators(proto: onnx.ModelProto) -> dict[str, int]:
    """Operator type -> number of nodes, sorted by name, bodies of control flow included."""
    counts = Counter(node.op_type for node in walk.nodes(proto.graph))
    return dict(sorted(counts.items()))


def describe(value: onnx.ValueInfoProto) -> TensorInfo:
    """Name, type and shape of an input or output; a dynamic axis by its name, `?` where it has none."""
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorInfo(name=value.name, dtype=dtype, shape=shape)

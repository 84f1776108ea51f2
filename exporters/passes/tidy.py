"""Makes an ONNX graph small, plain and the same on every export, and checks it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from compressor.errors import ExportError
from compressor.onnx_graphs import walk
from compressor.report import TensorInfo
from exporters.capture import factored_recurrent
from exporters.loops import scan
from exporters.passes import external_data
from exporters.passes.attention_masks import FIRST_WITH_ATTENTION, WidenAttentionMasks
from exporters.passes.folding import FoldConstants
from exporters.passes.shared_weights import ShareWeights
from exporters.passes.single_entries import SqueezeSingleEntries
from exporters.passes.split_sizes import FIRST_WITH_COUNTS, GiveSplitsSizes
from exporters.passes.zero_states import DropZeroStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx

    from exporters.loops.scan import StepBody

    Axes = Mapping[str, Mapping[int, str]]

_NO_LIMIT = 2**62
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


class ExpandFactored(ir.passes.InPlacePass):
    """Replaces the placeholders of factored recurrent layers by a `Scan`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        modified = factored_recurrent.PLACEHOLDER_DOMAIN in model.opset_imports
        factored_recurrent.expand(model)
        return ir.passes.PassResult(model, modified)


def passes_for(
    opset: int, bodies: Sequence[StepBody] = (), translate: Callable[[StepBody], ir.Model] | None = None
) -> list[ir.passes.PassBase]:
    """The passes that every graph of PyTorch goes through, in their order.

    Args:
        opset: Of the graph.
        bodies: Of the loops for which the graph holds placeholders.
        translate: Makes the graph of such a body; None if there are none.
    """
    return [
        FoldConstants(),
        *([scan.ExpandLoops(bodies, translate)] if translate is not None else []),
        *([GiveSplitsSizes()] if opset < FIRST_WITH_COUNTS else []),
        ExpandFactored(),
        *([WidenAttentionMasks()] if opset >= FIRST_WITH_ATTENTION else []),
        DropZeroStates(),
        SqueezeSingleEntries(),
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(size_limit=_NO_LIMIT),
        ShareWeights(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    ]


def tidy(
    model: ir.Model,
    bodies: Sequence[StepBody] = (),
    translate: Callable[[StepBody], ir.Model] | None = None,
) -> None:
    """Fold constants, merge equal initializers, drop what nothing uses and all debugging metadata, in place.

    Args:
        model: The graph.
        bodies: Of the loops for which it holds placeholders.
        translate: Makes the graph of such a body.
    """
    opset = model.opset_imports.get("")
    assert opset is not None
    for graph_pass in passes_for(opset, bodies, translate):  # one by one: `Sequential` would hide an ExportError
        graph_pass(model)


def name_values(model: ir.Model, inputs: Iterable[str], outputs: Iterable[str]) -> None:
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


def to_proto(model: ir.Model, inputs: Axes, outputs: Axes, ir_version: int) -> onnx.ModelProto:
    """The graph as it goes into the file: dynamic axes under the task's names, no shapes of intermediate values."""
    proto = ir.to_proto(model)
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

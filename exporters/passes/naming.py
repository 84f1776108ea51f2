"""Gives a graph the names that the task has for its inputs, outputs and dynamic axes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compressor.onnx_graphs import walk
from exporters.passes import release

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx
    import onnx_ir as ir

    Axes = Mapping[str, Mapping[int, str]]

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


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
    """The graph as it goes into the file: dynamic axes under the task's names, no shapes of intermediate values.

    `model` has no weights afterwards.
    """
    proto = release.to_proto(model)
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
                named = outputs[value.name].get(axis)
                traced = _SYMBOL.sub(lambda symbol: names.get(symbol[0], symbol[0]), dimension.dim_param)
                dimension.dim_param = named or traced

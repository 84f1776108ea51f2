"""A `Scan` of known length as plain operations, one copy of its body for each step: for runtimes without `Scan`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def has_scan(model: onnx.ModelProto) -> bool:
    """Whether a file has a `Scan`."""
    return any(node.op_type == "Scan" for node in model.graph.node)


def unroll(model: onnx.ModelProto) -> int:
    """Replace every `Scan` whose number of steps is known, in place; returns how many.

    A `Scan` that steps along another axis than the first, or whose body has a body of its own, is left alone.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape for value in (*inferred.value_info, *inferred.input)}
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in model.graph.node:
        scan = _Scan(model.graph, node) if node.op_type == "Scan" else None
        steps = None if scan is None else _steps(node.input[scan.states], shapes, stored)
        if scan is None or steps is None or not scan.is_plain:
            nodes.append(node)
        else:
            nodes += scan.unrolled(steps)
            replaced += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return replaced


def _steps(name: str, shapes: dict[str, Any], stored: dict[str, list[int]]) -> int | None:
    """The size of the first axis."""
    if name in stored:
        return stored[name][0]
    if name not in shapes or not shapes[name].dim or not shapes[name].dim[0].HasField("dim_value"):
        return None
    return int(shapes[name].dim[0].dim_value)


class _Scan:
    """The operations that do the same as one node."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self._graph, self._node = graph, node
        self._words = {attribute.name: attribute for attribute in node.attribute}
        self._body: onnx.GraphProto = self._words["body"].g
        sequences = self._words["num_scan_inputs"].i
        self.states = len(node.input) - sequences
        results = len(node.output) - self.states
        self._back_in = self._list("scan_input_directions", sequences)
        self._back_out = self._list("scan_output_directions", results)
        axes = self._list("scan_input_axes", sequences) + self._list("scan_output_axes", results)
        inner = any(attribute.HasField("g") for each in self._body.node for attribute in each.attribute)
        self.is_plain = not any(axes) and not inner
        self._prefix = f"unrolled.{node.name or node.output[0] or node.output[-1]}"
        self._made: list[onnx.NodeProto] = []

    def _list(self, name: str, count: int) -> list[int]:
        return list(self._words[name].ints) if name in self._words else [0] * count

    def unrolled(self, steps: int) -> list[onnx.NodeProto]:
        """One copy of the body for each step."""
        own = {}  # weights within the body are weights of the graph
        for tensor in self._body.initializer:
            own[tensor.name] = f"{self._prefix}.{tensor.name}"
            stored = self._graph.initializer.add()
            stored.CopyFrom(tensor)
            stored.name = own[tensor.name]
        states = list(self._node.input[: self.states])
        found: list[list[str]] = []
        for step in range(steps):
            given = [
                self._op("Gather", [name, self._integer(steps - 1 - step if back else step)], axis=0)
                for name, back in zip(self._node.input[self.states :], self._back_in, strict=True)
            ]
            results = self._copy(own, [*states, *given], step)
            states = results[: self.states]
            found.append(results[self.states :])
        for name, state in zip(self._node.output[: self.states], states, strict=True):
            if name:
                self._op("Identity", [state], out=name)
        zero = self._integer(0, axes=True)
        for index, name in enumerate(self._node.output[self.states :]):
            rows = [self._op("Unsqueeze", [results[index], zero]) for results in found]
            if name:
                self._op("Concat", rows[::-1] if self._back_out[index] else rows, out=name, axis=0)
        return self._made

    def _copy(self, own: dict[str, str], given: list[str], step: int) -> list[str]:
        names = dict(own) | {value.name: name for value, name in zip(self._body.input, given, strict=True)}
        for node in self._body.node:
            copied = self._new(node)
            for output in node.output:
                if output:
                    names[output] = f"{self._prefix}.{step}.{output}"
            copied.input[:] = [names.get(name, name) for name in node.input]
            copied.output[:] = [names.get(name, name) for name in node.output]
            copied.name = f"{self._prefix}.{step}.{node.name or node.output[0]}"
        return [names.get(value.name, value.name) for value in self._body.output]

    def _new(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        self._made.append(copied)
        return copied

    def _integer(self, value: int, *, axes: bool = False) -> str:
        name = f"{self._prefix}.{'axes' if axes else 'place'}.{value}"
        if all(tensor.name != name for tensor in self._graph.initializer):
            array = np.array([value] if axes else value, np.int64)
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _op(self, kind: str, inputs: list[str], *, out: str = "", **attributes: Any) -> str:
        number = len(self._made)
        name = out or f"{self._prefix}.value.{number}"
        self._made.append(helper.make_node(kind, inputs, [name], name=f"{self._prefix}.{kind}.{number}", **attributes))
        return name

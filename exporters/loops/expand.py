"""Replaces the placeholders of loops by ONNX `Scan` operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from compressor.onnx_graphs.builder import Builder, Names, replace
from compressor.onnx_graphs.scans import scan
from exporters.loops.scan import DOMAIN, PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporters.loops.scan import StepBody

    Translate = Callable[[StepBody], ir.Model]


class ExpandLoops(ir.passes.InPlacePass):
    """Replaces the placeholder of every loop by a `Scan`."""

    def __init__(self, bodies: Sequence[StepBody], translate: Translate) -> None:
        """For the loops of one model.

        Args:
            bodies: As the rolled model numbers them.
            translate: Makes the graph of a body.
        """
        super().__init__()
        self._bodies, self._translate = bodies, translate

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        placeholders = [node for node in model.graph if node.domain == DOMAIN and node.op_type == PLACEHOLDER]
        for node in placeholders:
            number = node.attributes["number"].as_int()
            _expand(model.graph, node, self._translate(self._bodies[number]).graph, f"loop_{number}")
        if not any(node.domain == DOMAIN for node in model.graph):
            model.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, bool(placeholders))


def _expand(graph: ir.Graph, node: ir.Node, body: ir.Graph, prefix: str) -> None:
    states = node.attributes["states"].as_int()
    backward = node.attributes["backward"].as_ints()
    results = node.attributes["results"].as_ints() if len(node.outputs) > states else ()
    count = states + len(backward)
    names = adopt(graph, body, prefix, node.inputs[count:])
    do = Builder(names, prefix)
    replace(node, do, scan(do, body, node.inputs[:states], node.inputs[states:count], backward, results))


def adopt(graph: ir.Graph, body: ir.Graph, prefix: str, outside: Sequence[ir.Value | None]) -> Names:
    """Make a translated graph the body of a loop in another one, in place; gives the names that are taken.

    Args:
        graph: Gets the weights.
        body: Its last inputs are read from outside.
        prefix: Of the names in it.
        outside: What the last inputs are, in the graph.
    """
    count = len(body.inputs) - len(outside)
    _rename(body, prefix)
    for inner, outer in zip(list(body.inputs[count:]), outside, strict=True):
        assert outer is not None
        ir.convenience.replace_all_uses_with(inner, outer)  # the body reads it where it is
    del body.inputs[count:]
    names = Names.of(graph)
    for name, weight in list(body.initializers.items()):  # a weight of the body becomes one of the graph
        del body.initializers[name]
        weight.name = names.new(name)
        graph.register_initializer(weight)
    _separate(body)
    for value in (*body.inputs, *body.outputs):
        value.shape = None
    return names


def _rename(body: ir.Graph, prefix: str) -> None:
    """Names that nothing else in the file has."""
    values = [*body.inputs, *(value for node in body.all_nodes() for value in node.outputs)]
    for number, value in enumerate(dict.fromkeys(values)):
        value.name = f"{prefix}.{number}"
    for number, node in enumerate(body.all_nodes()):
        node.name = f"{prefix}.node_{number}"
    body.name = prefix


def _separate(body: ir.Graph) -> None:
    """Make every output the result of a node of its own."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(body.outputs)):
        node = value.producer()
        if node is None or value in seen or node.graph is not body:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type = f"{value.name}.{index}", value.type
            body.append(copy)
            body.outputs[index] = copy.outputs[0]
        seen.add(body.outputs[index])

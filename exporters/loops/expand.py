"""Puts `Scan` nodes into an ONNX graph in which placeholders stand for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from exporters.loops.scan import DOMAIN, PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporters.loops.scan import StepBody

    Translate = Callable[[StepBody], ir.Model]


def expand(model: ir.Model, bodies: Sequence[StepBody], translate: Translate) -> None:
    """Replace every placeholder by a `Scan`, in place.

    Args:
        model: The graph.
        bodies: As the rolled model numbers them.
        translate: Makes the graph of a body.
    """
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == PLACEHOLDER:
            number = node.attributes["number"].as_int()
            _expand(model.graph, node, translate(bodies[number]), f"loop_{number}")
    if not any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports.pop(DOMAIN, None)


def _expand(graph: ir.Graph, node: ir.Node, body_model: ir.Model, prefix: str) -> None:
    body = body_model.graph
    states = node.attributes["states"].as_int()
    backward = list(node.attributes["backward"].as_ints())
    count = states + len(backward)
    _rename(body, prefix)
    for inner, outer in zip(list(body.inputs[count:]), node.inputs[count:], strict=True):
        assert outer is not None
        ir.convenience.replace_all_uses_with(inner, outer)  # the body reads it where it is
    del body.inputs[count:]
    taken = {value.name for each in graph.all_nodes() for value in each.outputs} | {
        value.name for value in graph.inputs
    }
    for name in list(body.initializers):
        _move(graph, body, body.initializers[name], taken)
    _separate(body)
    for value in (*body.inputs, *body.outputs):
        value.shape = None
    scan = ir.Node(
        "",
        "Scan",
        node.inputs[:count],
        [
            ir.AttrGraph("body", body),
            ir.AttrInt64("num_scan_inputs", len(backward)),
            ir.AttrInt64s("scan_input_directions", backward),
            *_directions(node, states),
        ],
        num_outputs=len(node.outputs),
        name=prefix,
    )
    for old, value in zip(node.outputs, scan.outputs, strict=True):
        value.shape, value.type, value.name = old.shape, old.type, old.name
    graph.insert_before(node, scan)
    ir.convenience.replace_all_uses_with(node.outputs, scan.outputs, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _directions(node: ir.Node, states: int) -> list[ir.Attr]:
    if len(node.outputs) == states:
        return []
    return [ir.AttrInt64s("scan_output_directions", list(node.attributes["results"].as_ints()))]


def _rename(body: ir.Graph, prefix: str) -> None:
    """Names that nothing else in the file has."""
    values = [*body.inputs, *(value for node in body.all_nodes() for value in node.outputs)]
    for number, value in enumerate(dict.fromkeys(values)):
        value.name = f"{prefix}.{number}"
    for number, node in enumerate(body.all_nodes()):
        node.name = f"{prefix}.node_{number}"
    body.name = prefix


def _move(graph: ir.Graph, body: ir.Graph, value: ir.Value, taken: set[str | None]) -> None:
    """A weight of the body becomes one of the graph, under its name or another one."""
    assert value.name is not None
    del body.initializers[value.name]
    name, number = value.name, 1
    while name in graph.initializers or name in taken:
        name, number = f"{value.name}.{number}", number + 1
    value.name = name
    graph.register_initializer(value)


def _separate(body: ir.Graph) -> None:
    """Every output is the result of a node of its own."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(body.outputs)):
        node = value.producer()
        if node is None or value in seen or node.graph is not body:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type = f"{value.name}.{index}", value.type
            body.append(copy)
            body.outputs[index] = copy.outputs[0]
        seen.add(body.outputs[index])

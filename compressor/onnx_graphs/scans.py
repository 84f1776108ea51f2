"""Makes `Scan` nodes, the loops of ONNX. ONNX Runtime and OpenVINO have the operator; try it in any other runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from compressor.onnx_graphs.cells import held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.onnx_graphs.builder import Builder

    Step = Callable[[Builder, Sequence[ir.Value], Sequence[ir.Value]], Sequence[ir.Value]]
    """Adds the nodes of one step; given the states and the elements of the sequences, gives the new states."""


def scan(
    do: Builder,
    body: ir.Graph,
    states: Sequence[ir.Value | None],
    sequences: Sequence[ir.Value | None],
    backward: Sequence[int],
    results_backward: Sequence[int],
) -> list[ir.Value]:
    """Add a `Scan`: the body runs once for each element of the sequences along their first axis.

    Args:
        do: Gets the node, which is called like the body.
        body: Takes states and elements, and gives new states and results; it may also read any value outside of itself.
        states: In front of the first step.
        sequences: What is gone through.
        backward: 1 for each sequence that is gone through from its end.
        results_backward: 1 for each result whose first step comes last.

    Returns:
        The last states, then all results, each (steps, ...).
    """
    attributes = {
        "body": body,
        "num_scan_inputs": len(sequences),
        "scan_input_directions": list(backward),
        **({"scan_output_directions": list(results_backward)} if results_backward else {}),
    }
    count = len(states) + len(results_backward)
    return do.several("Scan", [*states, *sequences], count, name=body.name, attributes=attributes)


def layer_scan(
    do: Builder,
    body: Builder,
    step: Step,
    states: Sequence[ir.Value | None],
    sequences: Sequence[ir.Value | None],
    valid: ir.Value | None,
    *,
    backward: bool,
    name: str,
) -> list[ir.Value]:
    """A recurrent layer in one direction, as a `Scan`.

    Args:
        do: Gets the node.
        body: An empty builder for the body.
        step: The equations of a step.
        states: h, and c, in front of the first step (B, H).
        sequences: What the inputs add to the sums at every step (T, B, N).
        valid: False past the end of a sequence (T, B, 1); None if all are equally long. States then stay as they are.
        backward: Run from the last step to the first.
        name: Of the body.

    Returns:
        The last states (B, H), and h at every step (T, B, H).
    """
    inner_states = [_input(body, ir.DataType.FLOAT) for _ in states]
    elements = [_input(body, ir.DataType.FLOAT) for _ in sequences]
    masks = [] if valid is None else [_input(body, ir.DataType.BOOL)]
    new = list(step(body, inner_states, elements))
    if masks:
        new = held(body, masks[0], new, inner_states)
    new = [body("Identity", [value]) if value in inner_states else value for value in new]
    outputs = [*new, body("Identity", [new[0]])]
    for value in outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [*inner_states, *elements, *masks], outputs, nodes=body.nodes, initializers=body.initializers, name=name
    )
    inputs = [*sequences, *([valid] if masks else [])]
    return scan(do, graph, states, inputs, [int(backward)] * len(inputs), [int(backward)])


def _input(body: Builder, kind: ir.DataType) -> ir.Value:
    """An input of a body; its shape follows from the value outside."""
    return ir.Value(name=body.new_name("Input"), type=ir.TensorType(kind))

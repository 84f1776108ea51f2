"""Additions that a product does along the way: of a constant row, and of a value that was computed before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.c_code.graph import constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Fused:
    """A product with a constant matrix, and what is added to its result."""

    result: ir.Value
    """What it all comes to."""
    nodes: tuple[ir.Node, ...] = ()
    """The additions."""
    bias: NDArray[Any] | None = None
    """The same for each row of the result."""
    added: ir.Value | None = None
    """Of the result's shape."""


def fused_products(graph: ir.Graph) -> dict[ir.Node, Fused]:
    """For each product with a constant matrix what it can add."""
    order = {node: index for index, node in enumerate(graph)}
    return {node: _fused(node, order) for node in graph if node.op_type == "MatMul" and _is_matrix(node.inputs[1])}


def _is_matrix(value: ir.Value | None) -> bool:
    """Constant and of two axes: a stack of matrices is multiplied as if it were computed, and adds nothing."""
    array = None if value is None else constant(value)
    return array is not None and array.ndim == 2


def _fused(node: ir.Node, order: Mapping[ir.Node, int]) -> Fused:
    found = Fused(node.outputs[0])
    while (pair := _addition(found.result)) is not None:
        add, other = pair
        row = constant(other)
        if row is not None:
            if found.bias is not None or found.added is not None or not _is_row(row, found.result):
                break
            found = Fused(add.outputs[0], (*found.nodes, add), row.ravel())
            continue
        maker = other.producer()
        earlier = other.is_graph_input() or (maker is not None and order[maker] < order[node])
        if not earlier or other.shape != found.result.shape or add.outputs[0].shape != found.result.shape:
            break
        return Fused(add.outputs[0], (*found.nodes, add), found.bias, other)
    return found


def _addition(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """The addition that alone reads a value, and its other input."""
    users = [use.node for use in value.uses()]
    if len(users) != 1 or users[0].op_type != "Add" or value.is_graph_output():
        return None
    others = [item for item in users[0].inputs if item is not value and item is not None]
    return (users[0], others[0]) if others else None


def _is_row(row: NDArray[Any], value: ir.Value) -> bool:
    return value.shape is not None and row.size == row.shape[-1:][0] == value.shape[-1] if row.ndim else False


def last_uses(graph: ir.Graph, written: Mapping[ir.Node, ir.Node]) -> dict[ir.Value, int]:
    """Value -> the place of the last node that reads it; outputs are read at the end.

    Args:
        graph: All nodes.
        written: Those that are written with another one, and so read with that.
    """
    last: dict[ir.Value, int] = {}
    order = {node: index for index, node in enumerate(graph)}
    for node in graph:
        for value in node.inputs:
            if value is not None:
                last[value] = max(last.get(value, -1), order[written.get(node, node)])
    for value in graph.outputs:
        last[value] = 2**31
    return last

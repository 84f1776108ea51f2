"""Recurrent nodes as plain operations, position by position, for a graph whose length is fixed.

The products with the inputs are one MatMul for all positions; each position then has one Gemm with the state, which has
the biases too, and the gates. Formulas: https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM), gates in the order of ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir
    from numpy.typing import NDArray

LONGEST = 256
"""Positions of the longest sequence that is unrolled; each takes some ten nodes a layer."""
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
"""Of the ONNX operators."""
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
OPERATORS = frozenset({"Add", "Concat", "Gemm", "MatMul", "Mul", "Split", "Squeeze", "Unsqueeze"})
"""What is always made; the gates come on top."""
_PLACES = {"W": 1, "R": 2, "B": 3, "lengths": 4, "h": 5, "c": 6, "P": 7}


@dataclass(frozen=True)
class Piece:
    """A constant (K, N) that holds a part of a recurrent matrix, transposed."""

    name: str
    place: int
    """Of the matrix among the inputs of the node: 1 is W, 2 is R."""
    direction: int
    rows: slice
    """Of this direction of the matrix (G * H, K)."""


@dataclass(frozen=True)
class Unrolled:
    """What became of a node."""

    pieces: tuple[Piece, ...]
    roles: Mapping[str, str]
    """Name of a value at one position -> what it is at every position, such as the state of a direction."""


class _Nodes:
    """Collects nodes and constants that stand for one."""

    def __init__(self, graph: onnx_ir.Graph, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix
        self.nodes: list[onnx_ir.Node] = []
        self.pieces: list[Piece] = []
        self.roles: dict[str, str] = {}
        self._constants = 0
        self._role, self._inside = "", 0

    def at_position(self, role: str) -> None:
        """What is made from here on belongs to one position; `role` is the same at each of them."""
        self._role, self._inside = role, 0

    def __call__(self, operator: str, inputs: list[Any], outputs: int = 1, **attributes: Any) -> Any:
        import onnx_ir as ir

        node = ir.node(operator, inputs, attributes, num_outputs=outputs, name=f"{self.prefix}.{len(self.nodes)}")
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}.{index}"
            if self._role:
                self.roles[value.name] = f"{self.prefix}.{self._role}.{self._inside}.{index}"
        self._inside += 1
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def constant(self, array: NDArray[Any]) -> onnx_ir.Value:
        import onnx_ir as ir

        value = ir.Value(name=f"{self.prefix}.constant.{self._constants}", const_value=ir.tensor(array))
        self._constants += 1
        self.graph.register_initializer(value)
        return value

    def piece(self, array: NDArray[Any], place: int, direction: int, rows: slice) -> onnx_ir.Value:
        """Rows of one direction of a matrix (G * H, K) as a constant (K, N)."""
        value = self.constant(array[rows].T.copy())
        self.pieces.append(Piece(str(value.name), place, direction, rows))
        return value


def obstacle(node: onnx_ir.Node) -> str:
    """Why a recurrent node cannot be unrolled; empty where it can."""
    x = node.inputs[0]
    if x is None or x.shape is None or not all(isinstance(size, int) for size in list(x.shape)[:2]):
        return "its length or batch is open: fix them with --shape"
    if int(x.shape[0]) > LONGEST:  # type: ignore[arg-type]
        return f"its length is {x.shape[0]}, and {LONGEST} is the most that is unrolled"
    if any(_input(node, name) is not None and _array(node, name) is None for name in "WRB"):
        return "its weights are no constants"
    if _input(node, "P") is not None or "clip" in node.attributes or _layout(node):
        return "it has peepholes, a clip or another layout"
    words = _activations(node)
    allowed = [["Tanh"], ["Relu"]] if node.op_type == "RNN" else [_DEFAULTS[node.op_type]]
    return "" if all(word in allowed for word in words) else "it has activations of its own"


def _layout(node: onnx_ir.Node) -> int:
    attribute = node.attributes.get("layout")
    return attribute.as_int() if attribute is not None else 0


def unroll(graph: onnx_ir.Graph, node: onnx_ir.Node) -> Unrolled:
    """Put plain operations in the place of a node of which `obstacle` says nothing."""
    import onnx_ir as ir

    nodes = _Nodes(graph, node.name or str(node.outputs[0].name))
    x = node.inputs[0]
    assert x is not None
    assert x.shape is not None
    length, batch = (int(size) for size in list(x.shape)[:2])  # type: ignore[arg-type]
    direction = node.attributes.get_string("direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    outputs, ends = [], []
    for index, turned in enumerate(backward):
        steps, last = _direction(nodes, node, index, turned, length, batch)
        outputs.append(
            nodes("Unsqueeze", [_stack(nodes, steps), nodes.constant(np.array([1], np.int64))])
        )  # (T, 1, B, H)
        ends.append(last)
    made = [outputs[0] if len(outputs) == 1 else nodes("Concat", outputs, axis=1)]
    for kind in range(len(ends[0])):
        rows = [nodes("Unsqueeze", [last[kind], nodes.constant(np.array([0], np.int64))]) for last in ends]
        made.append(rows[0] if len(rows) == 1 else nodes("Concat", rows, axis=0))  # (D, B, H)
    graph.insert_before(node, nodes.nodes)
    for old, new in zip(node.outputs, made, strict=False):
        new.shape, new.type = old.shape, old.type
        if old.is_graph_output():
            new.name = old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return Unrolled(tuple(nodes.pieces), nodes.roles)


def _stack(nodes: _Nodes, steps: list[Any]) -> Any:
    axis = nodes.constant(np.array([0], np.int64))
    rows = [nodes("Unsqueeze", [step, axis]) for step in steps]
    return rows[0] if len(rows) == 1 else nodes("Concat", rows, axis=0)


def _direction(
    nodes: _Nodes, node: onnx_ir.Node, index: int, backward: bool, length: int, batch: int
) -> tuple[list[Any], list[Any]]:
    """The outputs (B, H) at every position and the last states of one direction."""
    gates = GATES[node.op_type]
    w, r = _row(node, "W", index), _row(node, "R", index)  # (G * H, I), (G * H, H)
    assert w is not None
    assert r is not None
    hidden = r.shape[1]
    b = _row(node, "B", index)
    both = np.zeros(2 * gates * hidden, w.dtype) if b is None else b
    given, kept = both[: gates * hidden].copy(), both[gates * hidden :].copy()
    alone = slice(2 * hidden, None)  # of a GRU the reset gate scales the second bias of the new state, not the first
    apart = np.zeros_like(given)
    if node.op_type == "GRU" and node.attributes.get_int("linear_before_reset", 0) == 1:
        apart[alone], given[alone] = given[alone], 0
    products = nodes("MatMul", [node.inputs[0], nodes.piece(w, _PLACES["W"], index, slice(0, gates * hidden))])
    if apart.any():
        products = nodes("Add", [products, nodes.constant(apart)])
    positions = nodes("Split", [products, nodes.constant(np.array([1] * length, np.int64))], length, axis=0)
    positions = positions if isinstance(positions, list) else [positions]
    first = nodes.constant(np.array([0], np.int64))
    rows = [nodes("Squeeze", [position, first]) for position in positions]  # (B, G * H)
    states = initial = _initial(nodes, node, index, batch, hidden, w.dtype)
    step = _Step(nodes, node, index, r, given + kept)
    outputs: list[Any] = [None] * length
    zero = nodes.constant(np.zeros(1, w.dtype))
    for place in reversed(range(length)) if backward else range(length):
        nodes.at_position(f"direction.{index}")
        new = step(rows[place], states)
        lengths = _input(node, "lengths")
        if lengths is None:
            outputs[place], states = new[0], new
            continue
        valid = nodes("Less", [nodes.constant(np.array([place], np.int32)), lengths])
        valid = nodes("Unsqueeze", [valid, nodes.constant(np.array([1], np.int64))])  # (B, 1)
        outputs[place] = nodes("Where", [valid, new[0], zero])
        states = [nodes("Where", [valid, after, before]) for after, before in zip(new, states, strict=True)]
    nodes.at_position("")
    nodes.roles |= {str(first.name): nodes.roles[str(last.name)] for first, last in zip(initial, states, strict=True)}
    return outputs, states


class _Step:
    """One position of one direction."""

    def __init__(self, nodes: _Nodes, node: onnx_ir.Node, index: int, r: NDArray[Any], bias: NDArray[Any]) -> None:
        self._nodes, self._kind = nodes, node.op_type
        self._activation = _activations(node)[index][0]
        self._hidden = hidden = r.shape[1]
        self._before = bool(node.attributes.get_int("linear_before_reset", 0))
        whole = slice(0, len(r))
        gates, new = slice(0, 2 * hidden), slice(2 * hidden, 3 * hidden)
        self._products = {
            rows.start: (nodes.piece(r, _PLACES["R"], index, rows), nodes.constant(bias[rows]))
            for rows in ((gates, new) if self._kind == "GRU" else (whole,))
        }
        counts = {"GRU": [2, 1], "LSTM": [1, 1, 1, 1], "RNN": [1]}[node.op_type]
        self._parts = nodes.constant(np.array([count * hidden for count in counts], np.int64))
        self._halves = nodes.constant(np.array([hidden, hidden], np.int64))
        self._one = nodes.constant(np.ones(1, r.dtype))

    def __call__(self, x: Any, states: list[Any]) -> list[Any]:
        """The new states from x (B, G * H), the product with the input, and the states before."""
        do, h = self._nodes, states[0]
        if self._kind == "RNN":
            return [do(self._activation, [do("Add", [x, self._product(h, 0)])])]
        if self._kind == "LSTM":
            total = do("Add", [x, self._product(h, 0)])
            i, o, f, c = do("Split", [total, self._parts], 4, axis=1)
            i, o, f, c = do("Sigmoid", [i]), do("Sigmoid", [o]), do("Sigmoid", [f]), do("Tanh", [c])
            cell = do("Add", [do("Mul", [f, states[1]]), do("Mul", [i, c])])
            return [do("Mul", [o, do("Tanh", [cell])]), cell]
        gates, new = do("Split", [x, self._parts], 2, axis=1)
        z, r = do("Split", [do("Sigmoid", [do("Add", [gates, self._product(h, 0)])]), self._halves], 2, axis=1)
        if self._before:
            kept = do("Mul", [r, self._product(h, 2 * self._hidden)])
        else:
            kept = self._product(do("Mul", [r, h]), 2 * self._hidden)
        new = do("Tanh", [do("Add", [new, kept])])
        return [do("Add", [do("Mul", [do("Sub", [self._one, z]), new]), do("Mul", [z, h])])]

    def _product(self, state: Any, start: int) -> Any:
        """The product (B, N) of a state with the rows of R from `start` on, and their bias."""
        weights, bias = self._products[start]
        return self._nodes("Gemm", [state, weights, bias])


def _initial(nodes: _Nodes, node: onnx_ir.Node, index: int, batch: int, hidden: int, dtype: Any) -> list[Any]:
    """The states (B, H) before the first position."""
    found = []
    for name in ("h", "c")[: 2 if node.op_type == "LSTM" else 1]:
        given = _input(node, name)
        if given is None:
            found.append(nodes.constant(np.zeros((batch, hidden), dtype)))
        else:
            bounds = [nodes.constant(np.array([number], np.int64)) for number in (index, index + 1, 0)]
            found.append(nodes("Squeeze", [nodes("Slice", [given, *bounds]), bounds[2]]))
    return found


def _input(node: onnx_ir.Node, name: str) -> onnx_ir.Value | None:
    place = _PLACES[name]
    return node.inputs[place] if place < len(node.inputs) else None


def _array(node: onnx_ir.Node, name: str) -> NDArray[Any] | None:
    value = _input(node, name)
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _row(node: onnx_ir.Node, name: str, index: int) -> NDArray[Any] | None:
    array = _array(node, name)
    return None if array is None else array[index]


def _activations(node: onnx_ir.Node) -> list[list[str]]:
    """The activations of each direction."""
    default = _DEFAULTS[node.op_type]
    count = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    given = [word.capitalize() for word in node.attributes.get_strings("activations", default * count)]
    size = len(default)
    return [given[size * index : size * (index + 1)] for index in range(count)]

"""Recurrent nodes as plain operations, position by position, for a graph whose length is fixed.

The products with the inputs are one MatMul for all positions; each position then has one Gemm with the state, which has
the biases too, and the gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.onnx_graphs import cells
from compressor.onnx_graphs.builder import Builder, Names, first_name, replace
from compressor.onnx_graphs.recurrent_node import PLACES, RecurrentNode
from compressor.onnx_graphs.unrolling.rows import joined, stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

LONGEST = 256
"""Positions of the longest sequence that is unrolled; each takes some ten nodes a layer."""
_ALWAYS = frozenset({"Add", "Concat", "Gemm", "MatMul", "Split", "Squeeze", "Unsqueeze"})
OPERATORS = {
    "RNN": _ALWAYS,
    "GRU": _ALWAYS | {"Mul", "Sigmoid", "Slice", "Sub", "Tanh"},
    "LSTM": _ALWAYS | {"Mul", "Sigmoid", "Tanh"},
}
"""Recurrent operator -> the operators that replace it."""


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

    nodes: Sequence[ir.Node]
    pieces: Sequence[Piece]
    roles: Mapping[str, str]
    """Name of a value at one position -> what it is at every position, such as the state of a direction."""


def obstacle(node: ir.Node) -> str:
    """Why a recurrent node cannot be unrolled; empty if it can."""
    recurrent, x = RecurrentNode(node), node.inputs[0]
    if x is None or x.shape is None or not all(isinstance(size, int) for size in list(x.shape)[:2]):
        return "its length or batch is open: fix them with --shape"
    if int(x.shape[0]) > LONGEST:  # type: ignore[arg-type]
        return f"its length is {x.shape[0]}, and {LONGEST} is the most that is unrolled"
    if any(recurrent.input(name) is not None and recurrent.array(name) is None for name in "WRB"):
        return "its weights are not constant"
    if recurrent.input("P") is not None or "clip" in node.attributes or recurrent.layout:
        return "it has peepholes, a clip or another layout"
    allowed = [["Tanh"], ["Relu"]] if node.op_type == "RNN" else [list(recurrent.gates.activations)]
    words = [recurrent.activations(direction) for direction in range(len(recurrent.backward))]
    return "" if all(word in allowed for word in words) else "it has activations of its own"


def unroll(graph: ir.Graph, node: ir.Node) -> Unrolled:
    """Replace a node by plain operations; `obstacle` must be empty."""
    unroller = _Unroller(graph, node)
    outputs, last = zip(
        *(unroller.direction(index, backward) for index, backward in enumerate(unroller.recurrent.backward)),
        strict=True,
    )
    do = unroller.do
    y = joined(do, [do("Unsqueeze", [stacked(do, steps), do.integers(1)]) for steps in outputs], 1)  # (T, D, B, H)
    ends = [stacked(do, states) for states in zip(*last, strict=True)]  # (D, B, H)
    results = [y, *ends][: len(node.outputs)]
    replace(node, do, results)
    return Unrolled(do.nodes, unroller.pieces, do.roles)


class _Positions(Builder):
    """Notes what the values of one position are at every position."""

    def __init__(self, names: Names, prefix: str) -> None:
        super().__init__(names, prefix)
        self._prefix = prefix
        self._role, self._count = "", 0
        self.roles: dict[str, str] = {}

    def at_position(self, role: str) -> None:
        """What is built from here on belongs to one position; `role` is the same at each of them."""
        self._role, self._count = role, 0

    def several(self, operator: str, inputs: Sequence[ir.Value | None], outputs: int, **options: Any) -> list[ir.Value]:
        """As every builder."""
        values = super().several(operator, inputs, outputs, **options)
        if self._role:
            for index, value in enumerate(values):
                self.roles[str(value.name)] = f"{self._prefix}.{self._role}.{self._count}.{index}"
            self._count += 1
        return values


class _Unroller:
    """One node."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.recurrent, self.prefix = RecurrentNode(node), node.name or first_name(node)
        x = node.inputs[0]
        assert x is not None
        assert x.shape is not None
        self.x, (self.length, self.batch) = x, (int(size) for size in list(x.shape)[:2])  # type: ignore[arg-type]
        self.do = _Positions(Names.of(graph), self.prefix)
        self.pieces: list[Piece] = []

    def piece(self, matrix: NDArray[Any], name: str, direction: int, rows: slice) -> ir.Value:
        """Rows of one direction of a matrix (G * H, K) as a constant (K, N)."""
        value = self.do.constant(matrix[rows].T.copy())
        self.pieces.append(Piece(str(value.name), PLACES[name], direction, rows))
        return value

    def direction(self, index: int, backward: bool) -> tuple[list[ir.Value], list[ir.Value]]:
        """The outputs (B, H) at every position and the last states of one direction."""
        do, recurrent = self.do, self.recurrent
        w, r = recurrent.weights(index)  # (G * H, I), (G * H, H)
        of_inputs, of_state = (bias.copy() for bias in recurrent.biases(index))
        hidden = r.shape[1]
        apart = np.zeros_like(of_inputs)
        if recurrent.gates.operator == "GRU" and not recurrent.reset_first:
            new = slice(2 * hidden, None)  # the reset gate scales the state's bias of the new state, not the inputs'
            apart[new], of_inputs[new] = of_inputs[new], 0
        sums = self._sums_of_inputs(w, apart, index)
        states = initial = self._initial(index, hidden, w.dtype)
        step = _step(self, index, r, of_inputs + of_state)
        lengths, zero = recurrent.input("lengths"), do.constant(np.zeros(1, w.dtype))
        outputs = dict.fromkeys(range(self.length), zero)
        for place in reversed(range(self.length)) if backward else range(self.length):
            do.at_position(f"direction.{index}")
            new_states = step(sums[place], states)
            if lengths is None:
                outputs[place], states = new_states[0], new_states
                continue
            inside = do("Less", [do.constant(np.array([place], np.int32)), lengths])
            valid = do("Unsqueeze", [inside, do.integers(1)])  # (B, 1)
            outputs[place] = do("Where", [valid, new_states[0], zero])
            states = cells.held(do, valid, new_states, states)
        do.at_position("")
        do.roles |= {str(first.name): do.roles[str(last.name)] for first, last in zip(initial, states, strict=True)}
        return list(outputs.values()), states

    def _sums_of_inputs(self, w: NDArray[Any], bias: NDArray[Any], index: int) -> list[ir.Value]:
        """W x + bias (B, G * H) at every position."""
        do = self.do
        products = do("MatMul", [self.x, self.piece(w, "W", index, slice(0, len(w)))])
        if bias.any():
            products = do("Add", [products, do.constant(bias)])
        positions = do.several("Split", [products, do.integers(*[1] * self.length)], self.length, axis=0)
        return [do("Squeeze", [position, do.integers(0)]) for position in positions]

    def _initial(self, index: int, hidden: int, dtype: Any) -> list[ir.Value]:
        """The states (B, H) in front of the first position."""
        do, states = self.do, []
        for name in self.recurrent.gates.states:
            initial = self.recurrent.input(name)
            if initial is None:
                states.append(do.constant(np.zeros((self.batch, hidden), dtype)))
            else:
                bounds = [do.integers(number) for number in (index, index + 1, 0)]
                states.append(do("Squeeze", [do("Slice", [initial, *bounds]), bounds[2]]))
        return states


def _step(
    unroller: _Unroller, index: int, r: NDArray[Any], bias: NDArray[Any]
) -> Callable[[ir.Value, list[ir.Value]], list[ir.Value]]:
    """Gives the new states from W x (B, G * H) of one position and the states in front of it."""
    do, recurrent, hidden = unroller.do, unroller.recurrent, r.shape[1]
    kind, order = recurrent.gates.operator, recurrent.gates.onnx_gates

    def product(rows: slice) -> Callable[[ir.Value], ir.Value]:
        """U s + b of some rows (B, N)."""
        weights, biases = unroller.piece(r, "R", index, rows), do.constant(bias[rows], f"{unroller.prefix}.bias")
        return lambda state: do("Gemm", [state, weights, biases])

    if kind == "GRU":
        of_gates, of_new = product(slice(0, 2 * hidden)), product(slice(2 * hidden, 3 * hidden))
        one = do.constant(np.ones(1, r.dtype))
        middle = do.integers(2 * hidden)
        parts = (do.integers(0), middle), (middle, do.integers(3 * hidden))

        def gru(x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
            gates, inputs = (do("Slice", [x, *bounds, do.integers(1)]) for bounds in parts)  # NNAPI splits evenly only
            total = do("Add", [gates, of_gates(states[0])])
            reset_first = recurrent.reset_first
            return cells.gru(do, total, inputs, states[0], of_new, hidden, order, reset_first=reset_first, one=one)

        return gru
    of_state = product(slice(0, len(r)))

    def step(x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
        total = do("Add", [x, of_state(states[0])])
        if kind == "LSTM":
            return cells.lstm(do, total, states[1], hidden, order, joint=False)
        return cells.rnn(do, total, recurrent.activations(index)[0])

    return step

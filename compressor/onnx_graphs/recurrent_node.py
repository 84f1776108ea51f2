"""A recurrent node of a graph, its inputs, weights and attributes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor import gates

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

OPERATORS = tuple(gates.BY_OPERATOR)
"""RNN, GRU and LSTM."""
PLACES = {"x": 0, "W": 1, "R": 2, "B": 3, "lengths": 4, "h": 5, "c": 6, "P": 7}
"""Name of an input -> its place. W is (D, G * H, I), R (D, G * H, H), B (D, 2 * G * H), h and c (D, B, H)."""


class RecurrentNode:
    """An `RNN`, `GRU` or `LSTM` with D directions, G gates, H units and I inputs."""

    def __init__(self, node: ir.Node) -> None:
        """Of a node whose type is one of `OPERATORS`."""
        self.node = node
        self.gates = gates.BY_OPERATOR[node.op_type]
        direction = node.attributes.get_string("direction", "forward")
        self.backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        """For each direction, whether it goes from the last position to the first."""
        self.reset_first = node.op_type == "GRU" and not node.attributes.get_int("linear_before_reset", 0)
        """The reset gate of a GRU scales the state in front of the product, not behind it."""
        self.layout = node.attributes.get_int("layout", 0)

    def input(self, name: str) -> ir.Value | None:
        """An input; None if it is left out."""
        place = PLACES[name]
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def array(self, name: str) -> NDArray[Any] | None:
        """The values of a constant input; None if it is left out or computed."""
        value = self.input(name)
        return None if value is None or value.const_value is None else value.const_value.numpy()

    def weights(self, direction: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """W (G * H, I) and R (G * H, H) of one direction."""
        w, r = self.array("W"), self.array("R")
        assert w is not None
        assert r is not None
        return w[direction], r[direction]

    def biases(self, direction: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Those of the inputs and of the state of one direction (G * H,); zeros if the node has none."""
        r, b = self.array("R"), self.array("B")
        assert r is not None
        rows = r.shape[1]
        both = np.zeros(2 * rows, r.dtype) if b is None else b[direction]
        return both[:rows], both[rows:]

    def activations(self, direction: int) -> list[str]:
        """The types of the activations of one direction, as ONNX names its operators."""
        defaults = list(self.gates.activations)
        words = self.node.attributes.get_strings("activations", defaults * len(self.backward))
        return [word.capitalize() for word in words][len(defaults) * direction :][: len(defaults)]


def is_relu(node: ir.Node) -> bool:
    """Whether a node is an `RNN` of Relu."""
    words = node.attributes.get_strings("activations", [])
    return node.op_type == "RNN" and any(word.lower() == "relu" for word in words)

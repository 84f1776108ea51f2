"""Stores a weight once that a graph holds in several layouts: transposed, with another order of gates, or reshaped.

Equal initializers are merged before. What is left are matrices that one layer of a model uses as they are and another
one transposed (a tied autoencoder), or as the weight of a recurrent node, which has its gates in ONNX's order and an
axis of directions, and elsewhere in PyTorch's (an `nn.LSTM` that shares its weights with an `nn.LSTMCell`). One of them
stays; the others are computed from it by Transpose, Split and Concat, which runtimes do once, when they load a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx_ir
    from numpy.typing import NDArray

    Matrix = NDArray[Any]

LEAST = 64
"""Elements of the smallest matrix that is looked at: what makes one from another takes some bytes as well."""
_GATE_ORDERS = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
"""For each gate of PyTorch, its place in the ONNX node: z,r,h -> r,z,n; i,o,f,c -> i,f,g,o."""
_WEIGHTS = (1, 2)
"""Places of W and R in a recurrent node's inputs."""


@dataclass(frozen=True)
class _Stored:
    """An initializer seen as a matrix in PyTorch's order of gates."""

    value: onnx_ir.Value
    gates: tuple[int, ...] = ()
    """The order of its row blocks that gives PyTorch's; empty where it is that."""

    def matrix(self) -> Matrix:
        """(rows, columns)."""
        import numpy as np

        assert self.value.const_value is not None
        array = np.squeeze(self.value.const_value.numpy())
        if not self.gates:
            return array
        blocks = np.split(array, len(self.gates))
        return np.concatenate([blocks[gate] for gate in self.gates])


def share(model: onnx_ir.Model) -> None:
    """Keep one of the initializers that are one matrix in several layouts, in place."""
    known: dict[bytes, _Stored] = {}
    for stored in _matrices(model):
        matrix = stored.matrix()
        first = known.get(_key(matrix))
        turned = first is None and known.get(_key(matrix.T))
        if first is None and not turned:
            known[_key(matrix)] = stored
        elif not stored.gates:  # of two recurrent nodes each keeps its own, which has to be an initializer
            _derive(model.graph, stored.value, first or turned or stored, transposed=first is None)


def _key(matrix: Matrix) -> bytes:
    import numpy as np

    return hashlib.sha256(f"{matrix.dtype} {matrix.shape} ".encode() + np.ascontiguousarray(matrix).tobytes()).digest()


def _matrices(model: onnx_ir.Model) -> Iterator[_Stored]:
    """Every initializer that is a matrix but for axes of size 1, those of recurrent nodes and convolutions first."""
    recurrent: dict[onnx_ir.Value, str] = {}
    fixed: dict[onnx_ir.Value, None] = {}
    for node in model.graph.all_nodes():
        for place, value in enumerate(node.inputs):
            if value is None or not value.is_initializer():
                continue
            if node.op_type in ("RNN", "GRU", "LSTM") and place in _WEIGHTS:
                recurrent[value] = node.op_type
            elif node.op_type.startswith("Conv"):
                fixed[value] = None
    ordered = dict.fromkeys((*recurrent, *fixed, *model.graph.initializers.values()))
    for value in ordered:
        tensor = value.const_value
        if tensor is None or tensor.size < LEAST or not tensor.dtype.is_floating_point():
            continue
        if sum(size != 1 for size in tensor.shape.numpy()) == 2:
            yield _Stored(value, _GATE_ORDERS.get(recurrent.get(value, ""), ()))


def _derive(graph: onnx_ir.Graph, value: onnx_ir.Value, source: _Stored, *, transposed: bool) -> None:
    """Put what computes `value` from `source` in its place."""
    import onnx_ir as ir

    nodes: list[onnx_ir.Node] = []

    def add(operator: str, inputs: list[onnx_ir.Value], outputs: int = 1, **attributes: Any) -> list[onnx_ir.Value]:
        node = ir.node(operator, inputs, attributes, num_outputs=outputs)
        for index, output in enumerate(node.outputs):
            output.name = f"{value.name}.{len(nodes)}.{index}"
            output.type = value.type
        nodes.append(node)
        return list(node.outputs)

    def sizes(numbers: Iterable[int], kind: str) -> onnx_ir.Value:
        constant = ir.Value(name=f"{value.name}.{kind}", const_value=ir.tensor(list(numbers), ir.DataType.INT64))
        graph.register_initializer(constant)
        return constant

    matrix, found = source.matrix(), source.value
    assert found.const_value is not None
    assert value.const_value is not None
    if found.const_value.shape.rank() != 2:
        found = add("Reshape", [found, sizes(matrix.shape, "matrix")])[0]
    if source.gates:
        count = len(source.gates)
        equal = sizes([len(matrix) // count] * count, "gates")
        parts = add("Split", [found, equal], count, axis=0)
        found = add("Concat", [parts[gate] for gate in source.gates], axis=0)[0]
    if transposed:
        found = add("Transpose", [found], perm=[1, 0])[0]
    shape = value.const_value.shape.numpy()
    if len(shape) != 2:
        found = add("Reshape", [found, sizes(shape, "shape")])[0]
    found.shape = ir.Shape(shape)
    first = next(iter(graph))
    graph.insert_before(first, nodes)
    ir.convenience.replace_all_uses_with(value, found, replace_graph_outputs=True)
    graph.initializers.pop(value.name or "")

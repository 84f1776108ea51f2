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

import numpy as np
import onnx_ir as ir

from compressor.gates import BY_OPERATOR
from compressor.onnx_graphs.builder import Builder, Names
from compressor.onnx_graphs.recurrent_node import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Matrix = NDArray[Any]

LEAST = 64
"""Elements of the smallest matrix that is looked at: what makes one from another takes some bytes as well."""
_WEIGHTS = (PLACES["W"], PLACES["R"])


@dataclass(frozen=True)
class _Stored:
    """An initializer seen as a matrix in PyTorch's order of gates."""

    value: ir.Value
    gates: tuple[int, ...] = ()
    """The order of its row blocks that gives PyTorch's; empty if it is that."""

    def matrix(self) -> Matrix:
        """(rows, columns)."""
        assert self.value.const_value is not None
        array = np.squeeze(self.value.const_value.numpy())
        if not self.gates:
            return array
        blocks = np.split(array, len(self.gates))
        return np.concatenate([blocks[gate] for gate in self.gates])


class ShareWeights(ir.passes.InPlacePass):
    """Keeps one of the initializers that are one matrix in several layouts."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """The pass."""
        known: dict[bytes, _Stored] = {}
        modified = False
        for stored in _matrices(model):
            matrix = stored.matrix()
            first = known.get(_key(matrix))
            turned = first is None and known.get(_key(matrix.T))
            if first is None and not turned:
                known[_key(matrix)] = stored
            elif not stored.gates:  # of two recurrent nodes each keeps its own, which has to be an initializer
                _derive(model.graph, stored.value, first or turned or stored, transposed=first is None)
                modified = True
        return ir.passes.PassResult(model, modified)


def _key(matrix: Matrix) -> bytes:
    return hashlib.sha256(f"{matrix.dtype} {matrix.shape} ".encode() + np.ascontiguousarray(matrix).tobytes()).digest()


def _matrices(model: ir.Model) -> Iterator[_Stored]:
    """Every initializer that is a matrix but for axes of size 1, those of recurrent nodes and convolutions first."""
    recurrent: dict[ir.Value, str] = {}
    fixed: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        for place, value in enumerate(node.inputs):
            if value is None or not value.is_initializer():
                continue
            if node.op_type in BY_OPERATOR and place in _WEIGHTS:
                recurrent[value] = node.op_type
            elif node.op_type.startswith("Conv"):
                fixed[value] = None
    ordered = dict.fromkeys((*recurrent, *fixed, *model.graph.initializers.values()))
    for value in ordered:
        tensor = value.const_value
        if tensor is None or tensor.size < LEAST or not tensor.dtype.is_floating_point():
            continue
        if sum(size != 1 for size in tensor.shape.numpy()) == 2:
            order = BY_OPERATOR[recurrent[value]].from_onnx if value in recurrent else ()
            yield _Stored(value, order if len(order) > 1 else ())


def _derive(graph: ir.Graph, value: ir.Value, source: _Stored, *, transposed: bool) -> None:
    """Compute `value` from `source`, and remove its initializer."""
    do = Builder(Names.of(graph), str(value.name))
    matrix, result = source.matrix(), source.value
    assert result.const_value is not None
    assert value.const_value is not None
    if result.const_value.shape.rank() != 2:
        result = do("Reshape", [result, do.integers(*matrix.shape)])
    if source.gates:
        count = len(source.gates)
        equal = do.integers(*[len(matrix) // count] * count)
        parts = do.several("Split", [result, equal], count, axis=0)
        result = do("Concat", [parts[gate] for gate in source.gates], axis=0)
    if transposed:
        result = do("Transpose", [result], perm=[1, 0])
    shape = value.const_value.shape.numpy()
    if len(shape) != 2:
        result = do("Reshape", [result, do.integers(*shape)])
    for node in do.nodes:
        for output in node.outputs:
            output.type = value.type
    result.shape = ir.Shape(shape)
    do.insert_before(next(iter(graph)))
    ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
    graph.initializers.pop(value.name or "")

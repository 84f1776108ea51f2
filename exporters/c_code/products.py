"""Products with weights: matrices, convolutions and recurrent layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from compressor.onnx_graphs.recurrent_node import RecurrentNode
from exporters.c_code.graph import HINT, Place, attributes, where
from exporters.c_code.inner_products import BLOCK
from exporters.c_code.loops import broadcast, loops
from exporters.c_code.product_kernels import held, room, rows_function
from exporters.c_code.rounding import packed

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.c_code.product_kernels import Activations
    from exporters.c_code.program import Program


class Rows:
    """A constant matrix with one row for each output, as the functions `k_rows...` take it."""

    def __init__(self, program: Program, matrix: NDArray[Any], comment: str) -> None:
        """Store it; if the program rounds, as integers with scales."""
        self.shape = matrix.shape
        rounding = program.rounding
        bits = 32 if rounding is None else rounding.bits
        activations: Activations = "float32" if rounding is None else rounding.activations
        self.kernel = program.use(rows_function(bits, activations))
        self.room = program.whole_numbers(
            room(matrix.shape[1], bits), held(bits, activations), -(-matrix.shape[1] // BLOCK) if bits == 4 else 0
        )
        if rounding is None:
            stored = [program.store(np.ascontiguousarray(matrix, np.float32), comment)]
        else:
            whole, scales = rounding(matrix)
            data = whole if bits == 8 else packed(whole)
            stored = [program.store(data, comment), program.store(scales, f"scales of {comment}")]
        self.arguments = ", ".join(place.pointer for place in stored)

    def product(self, target: str, source: str, bias: str = "NULL", count: int = 1, *, add: str = "NULL") -> str:
        """A statement: target[m][r] = rows . source[m] + bias + add[m][r]."""
        rows, inputs = self.shape
        room = f"{self.room}, " if self.room else ""
        return f"{self.kernel}({target}, {source}, {room}{self.arguments}, {bias}, {add}, {count}, {rows}, {inputs});"


def matmul(program: Program, node: ir.Node) -> None:
    """Products of the last two axes, of a vector as a row or a column too."""
    left, weights = program.place(node.inputs[0]), program.array(node.inputs[1])
    if weights is not None and weights.ndim == 2 and len(left.shape) >= 1:
        rows = Rows(program, weights.T, node.inputs[1].name or "weights")  # type: ignore[union-attr]
        target, bias, added = program.with_additions(node, node.inputs[0])
        count = left.size // weights.shape[0]
        program.lines.append(rows.product(target.pointer, left.pointer, bias, count, add=added))
        return
    right = program.place(node.inputs[1])
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise ExportError(f"{where(node)} of a vector that is computed is not supported in C", hint=HINT)
    target, kernel = program.result(node.outputs[0], node), program.use("matmul")
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    outer = target.shape[:-2]
    walks = [target.strides[:-2], *(broadcast(part.shape[:-2], part.strides[:-2], outer) for part in (left, right))]
    program.lines += loops(
        outer,
        walks,
        lambda index: [
            f"{kernel}(&{target.at(index[0])}, &{left.at(index[1])}, &{right.at(index[2])}, {m}, {k}, {n});"
        ],
    )


def gemm(program: Program, node: ir.Node) -> None:
    """Alpha A B + beta C with a constant B."""
    given, weights = attributes(node), program.array(node.inputs[1])
    left, bias = program.place(node.inputs[0]), program.array(node.inputs[2]) if len(node.inputs) > 2 else None
    if weights is None or given.get("transA") or (len(node.inputs) > 2 and bias is None):
        raise ExportError(f"{where(node)} of matrices that are computed is not supported in C", hint=HINT)
    matrix = (weights if given.get("transB") else weights.T) * np.float32(given.get("alpha", 1.0))
    rows = Rows(program, matrix, node.inputs[1].name or "weights")  # type: ignore[union-attr]
    stored = "NULL"
    if bias is not None:
        added = np.broadcast_to(bias * np.float32(given.get("beta", 1.0)), (left.shape[0], len(matrix)))
        if not (added == added[:1]).all():
            raise ExportError(f"{where(node)} with another bias for each row is not supported in C", hint=HINT)
        stored = program.store(np.ascontiguousarray(added[0], np.float32), f"bias of {node.name}").pointer
    target = program.result(node.outputs[0], node)
    program.lines.append(rows.product(target.pointer, left.pointer, stored, left.shape[0]))


def convolution(program: Program, node: ir.Node) -> None:
    """Along one or two axes, by constant weights."""
    given, weights, place = attributes(node), program.array(node.inputs[1]), program.place(node.inputs[0])
    if weights is None or weights.ndim not in (3, 4) or given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ExportError(f"{where(node)} of this form is not supported in C", hint=HINT)
    flat = weights.ndim == 3
    sizes = [given.get(name) or [default] * (weights.ndim - 2) for name, default in (("strides", 1), ("dilations", 1))]
    pads = list(given.get("pads") or [0] * 2 * (weights.ndim - 2))
    strides, dilations = ([1, *item] if flat else list(item) for item in sizes)
    before = [0, pads[0]] if flat else pads[:2]
    target = program.result(node.outputs[0], node)
    source, goal, kernel = (
        (*shape[:2], 1, *shape[2:]) if flat else shape for shape in (place.shape, target.shape, weights.shape)
    )
    bias = _place_of(program, node, 2)
    if int(given.get("group", 1)) == 1 and not any(pads) and weights.shape[1:] == place.shape[1:]:
        # one position: a product with the whole input
        rows = Rows(program, weights.reshape(len(weights), -1), node.inputs[1].name or "kernels")  # type: ignore[union-attr]
        row = bias.pointer if bias else "NULL"
        program.lines.append(rows.product(target.pointer, place.pointer, row, place.shape[0]))
        return
    stored = program.place(node.inputs[1])
    numbers = [*source[1:], *goal[1:], *kernel[2:], *strides, *dilations, *before, int(given.get("group", 1))]
    call = program.use("convolution")
    listed = ", ".join(map(str, numbers))
    for sample in range(source[0]):
        y, x = target.at(str(sample * math.prod(goal[1:]))), place.at(str(sample * math.prod(source[1:])))
        program.lines.append(
            f"{call}(&{y}, &{x}, {stored.pointer}, {bias.pointer if bias else 'NULL'}, (const int[]){{{listed}}});"
        )


def recurrent(program: Program, node: ir.Node) -> None:
    """An RNN, GRU or LSTM layer over a sequence of one sample, in one direction or both."""
    layer = RecurrentNode(node)
    x = program.place(node.inputs[0])
    lengths, peepholes = _place_of(program, node, 4), _place_of(program, node, 7)
    if layer.layout or x.shape[1] != 1 or peepholes is not None or layer.array("W") is None or layer.array("R") is None:
        raise ExportError(f"{where(node)} of this form (layout, batch, peepholes) is not supported in C", hint=HINT)
    _refuse_other_cells(layer, node)
    steps, inputs = x.shape[0], x.shape[2]
    outputs = [None if value is None or not value.name else program.result(value, node) for value in node.outputs]
    for direction, backward in enumerate(layer.backward):
        w, r = layer.weights(direction)
        hidden = r.shape[1]
        b_w, b_r = layer.biases(direction)
        split = layer.gates.operator == "GRU"
        rows = [Rows(program, part, f"{name} of {node.name}") for name, part in (("W", w), ("R", r))]
        biases = [
            program.store(np.ascontiguousarray(part, np.float32), f"bias of {node.name}").pointer
            for part in ((b_w, b_r) if split else (b_w + b_r,))
        ]
        states = [program.scratch(hidden) for _ in layer.gates.states]
        gates = program.scratch(len(w))
        more = program.scratch(len(w)) if split else gates
        lines = [
            _start(state, _place_of(program, node, 5 + index), direction, hidden) for index, state in enumerate(states)
        ]
        given = [*states, gates, *([more] if split else [])]
        count = str(steps) if lengths is None else lengths.at()
        lines.append(f"for (int t = 0; t < {count}; ++t) {{")
        where_now = f"({count} - 1 - t)" if backward else "t"
        inside = [
            rows[0].product(gates, f"{x.pointer} + {where_now} * {inputs}", biases[0]),
            rows[1].product(more, states[0], biases[1] if split else "NULL", add="NULL" if split else gates),
            f"{program.use('cell_' + _cell(layer, direction))}({', '.join(given)}, {hidden});",
        ]
        if outputs and outputs[0] is not None:
            width = len(layer.backward) * hidden
            inside.append(_copied(outputs[0], f"{where_now} * {width} + {direction * hidden}", states[0], hidden))
        lines += [f"    {line}" for line in inside] + ["}"]
        if lengths is not None and outputs and outputs[0] is not None:
            width = len(layer.backward) * hidden
            rest = [
                f"for (int t = {count}; t < {steps}; ++t) {{",
                f"    memset(&{outputs[0].at(f't * {width} + {direction * hidden}')}, 0, {hidden} * sizeof(float));",
                "}",
            ]
            lines += rest
        for state, place in zip(states, outputs[1:], strict=False):
            if place is not None:
                lines.append(_copied(place, str(direction * hidden), state, hidden))
        program.lines += lines


def _cell(layer: RecurrentNode, direction: int) -> str:
    kind = layer.gates.operator.lower()
    return f"rnn_{layer.activations(direction)[0].lower()}" if kind == "rnn" else kind


def _refuse_other_cells(layer: RecurrentNode, node: ir.Node) -> None:
    known = {"RNN": (["Tanh"], ["Relu"]), "GRU": (["Sigmoid", "Tanh"],), "LSTM": (["Sigmoid", "Tanh", "Tanh"],)}
    given = attributes(node)
    for direction in range(len(layer.backward)):
        unusual = layer.reset_first or "clip" in given or given.get("input_forget")
        if layer.activations(direction) not in known[node.op_type] or unusual:
            raise ExportError(f"{where(node)} with these activations or options is not supported in C", hint=HINT)


def _start(state: str, initial: Place | None, direction: int, hidden: int) -> str:
    if initial is None:
        return f"memset({state}, 0, {hidden} * sizeof(float));"
    return f"memcpy({state}, &{initial.at(str(direction * hidden))}, {hidden} * sizeof(float));"


def _copied(target: Place, index: str, state: str, hidden: int) -> str:
    return f"memcpy(&{target.at(index)}, {state}, {hidden} * sizeof(float));"


def _place_of(program: Program, node: ir.Node, index: int) -> Place | None:
    """The place of an input; None if it is left out."""
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else program.place(value)

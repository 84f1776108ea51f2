"""Operators over whole axes: sums, softmax, normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import ExportError
from exporters.c_code.elementwise import number
from exporters.c_code.graph import HINT, attributes, ints, strides_of, where
from exporters.c_code.loops import loops

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.c_code.program import Program


def reduce(program: Program, node: ir.Node) -> None:
    """Sum, mean, maximum or minimum over axes."""
    place = program.place(node.inputs[0])
    given = ints(node.inputs[1], node) if len(node.inputs) > 1 else attributes(node).get("axes")
    axes = {axis % len(place.shape) for axis in (given or range(len(place.shape)))}
    target = program.result(node.outputs[0], node)
    kept = tuple(size for axis, size in enumerate(place.shape) if axis not in axes)
    gone = tuple(size for axis, size in enumerate(place.shape) if axis in axes)
    walk = tuple(step for axis, step in enumerate(place.strides) if axis not in axes)
    inner = tuple(step for axis, step in enumerate(place.strides) if axis in axes)
    texts = {
        "ReduceSum": "total_ += {0};",
        "ReduceMean": "total_ += {0};",
        "ReduceMax": "total_ = {0} > total_ ? {0} : total_;",
        "ReduceMin": "total_ = {0} < total_ ? {0} : total_;",
        "ReduceL2": "total_ += {0} * {0};",
        "ReduceSumSquare": "total_ += {0} * {0};",
    }
    text, count = texts[node.op_type], math.prod(gone)
    ends = {"ReduceMean": f"total_ / {number(float(count))}", "ReduceL2": "sqrtf(total_)"}
    sums = text.startswith("total_ +=")

    def body(index: list[str]) -> list[str]:
        zero = "0.0f" if place.kind == "float" else "0"
        first = zero if sums else f"x_[{index[1]}]"
        steps = loops(gone, [inner], lambda below: [text.format(f"x_[{_joined(index[1], _renamed(below[0]))}]")])
        return [
            f"{place.kind} total_ = {first};",
            *map(_renamed_line, steps),
            f"{target.at(index[0])} = {ends.get(node.op_type, 'total_')};",
        ]

    lines = loops(kept, [strides_of(kept), walk], body)
    program.lines += ["{", f"    const {place.kind} *x_ = {place.pointer};", *(f"    {line}" for line in lines), "}"]


def softmax(program: Program, node: ir.Node) -> None:
    """Over one axis."""
    place = program.place(node.inputs[0])
    axis = int(attributes(node).get("axis", -1)) % len(place.shape)
    target = program.result(node.outputs[0], node)
    kernel = program.use("softmax" if node.op_type == "Softmax" else "log_softmax")
    rest = [
        (size, step) for index, (size, step) in enumerate(zip(place.shape, place.strides, strict=True)) if index != axis
    ]
    sizes, steps = tuple(size for size, _ in rest), tuple(step for _, step in rest)
    call = f"{kernel}(&{{0}}, &{{1}}, {place.shape[axis]}, {place.strides[axis]});"
    program.lines += loops(sizes, [steps, steps], lambda index: [call.format(target.at(index[0]), place.at(index[1]))])


def layer_norm(program: Program, node: ir.Node) -> None:
    """Over the last axes."""
    place, given = program.place(node.inputs[0]), attributes(node)
    axis = int(given.get("axis", -1)) % len(place.shape)
    size = math.prod(place.shape[axis:])
    weights = program.place(node.inputs[1])
    bias = program.place(node.inputs[2]).pointer if len(node.inputs) > 2 and node.inputs[2] is not None else "NULL"
    target, kernel = program.result(node.outputs[0], node), program.use("layer_norm")
    epsilon = number(float(given.get("epsilon", 1e-5)))
    program.lines.append(
        f"{kernel}({target.pointer}, {place.pointer}, {weights.pointer}, {bias}, {place.size // size}, {size}, "
        f"{epsilon});"
    )


def batch_norm(program: Program, node: ir.Node) -> None:
    """Of channels along axis 1, by statistics that are constants: a factor and a summand a channel."""
    arrays = [program.array(value) for value in node.inputs[1:5]]
    place = program.place(node.inputs[0])
    if any(array is None for array in arrays) or len(place.shape) < 2:
        raise ExportError(f"{where(node)} takes its statistics from the batch, which is not supported in C", hint=HINT)
    weight, bias, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = weight / np.sqrt(variance + float(attributes(node).get("epsilon", 1e-5)))
    constants = [
        program.store(array.astype(np.float32), f"of {node.op_type}") for array in (factor, bias - mean * factor)
    ]
    target = program.result(node.outputs[0], node, over=node.inputs[:1])
    channels = tuple(int(axis == 1) for axis in range(len(place.shape)))

    def body(index: list[str]) -> list[str]:
        x, a, b = (one.at(own) for one, own in zip((place, *constants), index[1:], strict=True))
        return [f"{target.at(index[0])} = {x} * {a} + {b};"]

    program.lines += loops(place.shape, [target.strides, place.strides, channels, channels], body)


def _joined(left: str, right: str) -> str:
    return right if left == "0" else left if right == "0" else f"{left} + {right}"


_INNER = str.maketrans("ijklmnpq", "abcdefgh")


def _renamed(index: str) -> str:
    """The index of an inner loop, whose variables have other names than those around it."""
    return index.translate(_INNER)


def _renamed_line(line: str) -> str:
    head, bracket, rest = line.partition("for (int ")
    return head + bracket + rest.translate(_INNER) if bracket else line

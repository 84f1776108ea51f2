"""Operators that move elements and compute nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from exporters.c_code.graph import attributes, ints, shape_of, strides_of, where
from exporters.c_code.loops import broadcast, loops

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.c_code.program import Program


def same(program: Program, node: ir.Node) -> None:
    """The elements of the input in the same order: no statement."""
    source = node.inputs[0]
    assert source is not None
    program.share(node.outputs[0], source, node)


def transpose(program: Program, node: ir.Node) -> None:
    """Axes in another order."""
    place = program.place(node.inputs[0])
    order = attributes(node).get("perm") or tuple(reversed(range(len(place.shape))))
    assert node.inputs[0] is not None
    program.view(node.outputs[0], node.inputs[0], node, tuple(place.strides[axis] for axis in order), 0)


def expand(program: Program, node: ir.Node) -> None:
    """Repeated along axes of size 1."""
    place, shape = program.place(node.inputs[0]), shape_of(node.outputs[0], where(node))
    assert node.inputs[0] is not None
    program.view(node.outputs[0], node.inputs[0], node, broadcast(place.shape, place.strides, shape), 0)


def cut(program: Program, node: ir.Node) -> None:
    """A part along some axes, by constant bounds."""
    place = program.place(node.inputs[0])
    starts, ends = (ints(node.inputs[index], node) for index in (1, 2))
    axes, jumps = (ints(node.inputs[index], node) if len(node.inputs) > index else None for index in (3, 4))
    assert starts is not None
    assert ends is not None
    assert node.inputs[0] is not None
    steps, offset = list(place.strides), 0
    for index, first in enumerate(starts):
        axis = (axes[index] if axes else index) % len(place.shape)
        jump = jumps[index] if jumps else 1
        begin = range(place.shape[axis])[slice(first, ends[index], jump)].start
        offset += begin * place.strides[axis]
        steps[axis] = jump * place.strides[axis]
    program.view(node.outputs[0], node.inputs[0], node, tuple(steps), offset)


def split(program: Program, node: ir.Node) -> None:
    """Parts along an axis, one behind the other."""
    place = program.place(node.inputs[0])
    axis = int(attributes(node).get("axis", 0)) % len(place.shape)
    assert node.inputs[0] is not None
    start = 0
    for value in node.outputs:
        program.view(value, node.inputs[0], node, place.strides, start * place.strides[axis])
        start += shape_of(value, where(node))[axis]


def concatenate(program: Program, node: ir.Node) -> None:
    """Inputs side by side along an axis."""
    target = program.result(node.outputs[0], node)
    axis = int(attributes(node)["axis"]) % len(target.shape)
    start = 0
    for value in node.inputs:
        part = program.place(value)
        program.copy(target, part, part.shape, part.strides, 0, start * target.strides[axis])
        start += part.shape[axis]


def gather(program: Program, node: ir.Node) -> None:
    """What stands at constant places along an axis, or rows of a table at places that are computed."""
    place = program.place(node.inputs[0])
    axis = int(attributes(node).get("axis", 0)) % max(len(place.shape), 1)
    chosen, value = program.array(node.inputs[1]), node.outputs[0]
    assert node.inputs[0] is not None
    outer, inner = place.shape[:axis], place.shape[axis + 1 :]
    if chosen is not None and chosen.size == 1:
        index = int(chosen.ravel()[0]) % place.shape[axis]
        steps = (*place.strides[:axis], *(0 for _ in chosen.shape), *place.strides[axis + 1 :])
        program.view(value, node.inputs[0], node, steps, index * place.strides[axis])
        return
    indices, target = program.place(node.inputs[1]), program.result(value, node)
    width = math.prod(inner)

    def body(index: list[str]) -> list[str]:
        row = indices.at(index[1])
        element = f"({row} < 0 ? {row} + {place.shape[axis]} : {row}) * {width} + {index[2]}"
        return [f"{target.at(index[0])} = {place.at(f'{index[3]} + {element}' if index[3] != '0' else element)};"]

    count = len(indices.shape)
    walks = [
        target.strides,
        (*(0 for _ in outer), *indices.strides, *(0 for _ in inner)),
        (*(0 for _ in outer), *(0 for _ in range(count)), *strides_of(inner)),
        (*place.strides[:axis], *(0 for _ in range(count)), *(0 for _ in inner)),
    ]
    program.lines += loops((*outer, *indices.shape, *inner), walks, body)


def gather_elements(program: Program, node: ir.Node) -> None:
    """For each place of the indices, what stands there in the input, along one axis at the index instead."""
    place, indices = program.place(node.inputs[0]), program.place(node.inputs[1])
    axis = int(attributes(node).get("axis", 0)) % len(place.shape)
    size, step = place.shape[axis], place.strides[axis]
    target = program.result(node.outputs[0], node)

    def body(index: list[str]) -> list[str]:
        row = indices.at(index[1])
        element = f"({row} < 0 ? {row} + {size} : {row}) * {step}"
        return [f"{target.at(index[0])} = {place.at(f'{index[2]} + {element}' if index[2] != '0' else element)};"]

    others = tuple(0 if own == axis else stride for own, stride in enumerate(place.strides))
    program.lines += loops(indices.shape, [target.strides, indices.strides, others], body)

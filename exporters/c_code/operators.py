"""One function for each kind of ONNX operator, which writes a node of a `Program`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import ExportError
from exporters.c_code.graph import HINT, Place, attributes, ints, kind_of, shape_of, strides_of, where
from exporters.c_code.loops import broadcast, loops

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.c_code.program import Program

Writer = Callable[["Program", "ir.Node"], None]

UNARY: Mapping[str, str] = {
    "Abs": "fabsf({0})",
    "Ceil": "ceilf({0})",
    "Cos": "cosf({0})",
    "Erf": "{erf}({0})",
    "Exp": "expf({0})",
    "Floor": "floorf({0})",
    "Log": "logf({0})",
    "Neg": "-({0})",
    "Reciprocal": "1.0f / ({0})",
    "Relu": "{0} > 0.0f ? {0} : 0.0f",
    "Round": "rintf({0})",
    "Sigmoid": "{sigmoid}({0})",
    "Sign": "(float)(({0} > 0.0f) - ({0} < 0.0f))",
    "Sin": "sinf({0})",
    "Softplus": "log1pf(expf(-fabsf({0}))) + ({0} > 0.0f ? {0} : 0.0f)",
    "Sqrt": "sqrtf({0})",
    "Tanh": "tanhf({0})",
}
"""Of floats; what stands in braces is an element, or a function of `kernels`."""
OF_INTEGERS: Mapping[str, str] = {
    "Abs": "{0} < 0 ? -{0} : {0}",
    "Neg": "-({0})",
    "Not": "!({0})",
    "Sign": "({0} > 0) - ({0} < 0)",
}
"""Of integers."""
BINARY: Mapping[str, str] = {
    "Add": "{0} + {1}",
    "And": "{0} && {1}",
    "Div": "{0} / {1}",
    "Equal": "{0} == {1}",
    "Greater": "{0} > {1}",
    "GreaterOrEqual": "{0} >= {1}",
    "Less": "{0} < {1}",
    "LessOrEqual": "{0} <= {1}",
    "Max": "{0} > {1} ? {0} : {1}",
    "Min": "{0} < {1} ? {0} : {1}",
    "Mul": "{0} * {1}",
    "Or": "{0} || {1}",
    "Pow": "powf({0}, {1})",
    "Sub": "{0} - {1}",
    "Where": "{0} ? {1} : {2}",
    "Xor": "!({0}) != !({1})",
}


def unary(program: Program, node: ir.Node) -> None:
    """An expression of one element."""
    source = program.place(node.inputs[0])
    table = UNARY if source.kind == "float" else OF_INTEGERS
    if node.op_type not in table:
        raise ExportError(f"{where(node)} of integers has no C here", hint=HINT)
    _elementwise(program, node, table[node.op_type])


def several(program: Program, node: ir.Node) -> None:
    """An expression of one element of each input, of a pair at a time if there are more than two."""
    if node.op_type in ("Max", "Min") and len(node.inputs) != 2:
        raise ExportError(f"{where(node)} of {len(node.inputs)} inputs has no C here", hint=HINT)
    _elementwise(program, node, BINARY[node.op_type])


def parametric(program: Program, node: ir.Node) -> None:
    """An expression with numbers from the node's attributes."""
    given = attributes(node)
    alpha = float(given.get("alpha", {"LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(node.op_type, 1.0)))
    beta = float(given.get("beta", 0.5))
    texts = {
        "Elu": f"{{0}} > 0.0f ? {{0}} : {number(alpha)} * expm1f({{0}})",
        "HardSigmoid": f"fminf(1.0f, fmaxf(0.0f, {number(alpha)} * {{0}} + {number(beta)}))",
        "HardSwish": "{0} * fminf(1.0f, fmaxf(0.0f, {0} * 0.166666672f + 0.5f))",
        "LeakyRelu": f"{{0}} > 0.0f ? {{0}} : {number(alpha)} * {{0}}",
        "Gelu": "0.5f * {0} * (1.0f + {erf}({0} * 0.707106769f))",
    }
    if given.get("approximate") == "tanh":
        raise ExportError(f"{where(node)}: its form by tanh has no C here", hint=HINT)
    _elementwise(program, node, texts[node.op_type], inputs=1)


def clip(program: Program, node: ir.Node) -> None:
    """Between two constants."""
    low, high = (program.array(node.inputs[place]) if len(node.inputs) > place else None for place in (1, 2))
    text = "{0}"
    if low is not None:
        text = f"fmaxf({number(float(low))}, {text})"
    if high is not None:
        text = f"fminf({number(float(high))}, {text})"
    _elementwise(program, node, text, inputs=1)


def cast(program: Program, node: ir.Node) -> None:
    """Between floats and integers; of the same kind nothing is done."""
    source, value = program.place(node.inputs[0]), node.outputs[0]
    to = kind_of(value, where(node))
    if source.kind == to and value.dtype is not None and str(value.dtype) != "BOOL":
        same(program, node)
        return
    boolean = str(value.dtype) == "BOOL"
    _elementwise(program, node, "{0} != 0" if boolean else f"({to}){{0}}")


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


def number(value: float) -> str:
    """A float of C that is exactly this number in 32 bits."""
    rounded = float(np.float32(value))
    if math.isinf(rounded):
        return "INFINITY" if rounded > 0 else "-INFINITY"
    text = f"{rounded:.9g}"
    return f"{text if any(letter in text for letter in '.en') else text + '.0'}f" if not math.isnan(rounded) else "NAN"


def _elementwise(program: Program, node: ir.Node, text: str, *, inputs: int | None = None) -> None:
    parts = [program.place(value) for value in (node.inputs[:inputs] if inputs else node.inputs)]
    target = program.result(node.outputs[0], node)
    names = {name: program.use(name) for name in ("erf", "sigmoid") if f"{{{name}}}" in text}

    def body(index: list[str]) -> list[str]:
        elements = [part.at(own) for part, own in zip(parts, index[1:], strict=True)]
        return [f"{target.at(index[0])} = {text.format(*elements, **names)};"]

    walks = [target.strides, *(broadcast(part.shape, part.strides, target.shape) for part in parts)]
    program.lines += loops(target.shape, walks, body)


def _joined(left: str, right: str) -> str:
    return right if left == "0" else left if right == "0" else f"{left} + {right}"


_INNER = str.maketrans("ijklmnpq", "abcdefgh")


def _renamed(index: str) -> str:
    """The index of an inner loop, whose variables have other names than those around it."""
    return index.translate(_INNER)


def _renamed_line(line: str) -> str:
    head, bracket, rest = line.partition("for (int ")
    return head + bracket + rest.translate(_INNER) if bracket else line


def place_of(program: Program, node: ir.Node, index: int) -> Place | None:
    """The place of an input; None if it is left out."""
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else program.place(value)

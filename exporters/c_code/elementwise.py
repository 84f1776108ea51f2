"""Operators that compute each element from one element of each input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import ExportError
from exporters.c_code.graph import HINT, attributes, kind_of, where
from exporters.c_code.loops import broadcast, loops
from exporters.c_code.shaping import same

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from exporters.c_code.program import Program

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
        raise ExportError(f"{where(node)} of integers is not supported in C", hint=HINT)
    _elementwise(program, node, table[node.op_type])


def several(program: Program, node: ir.Node) -> None:
    """An expression of one element of each input, of a pair at a time if there are more than two."""
    if node.op_type in ("Max", "Min") and len(node.inputs) != 2:
        raise ExportError(f"{where(node)} of {len(node.inputs)} inputs is not supported in C", hint=HINT)
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
        raise ExportError(f"{where(node)}: its form by tanh is not supported in C", hint=HINT)
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


def number(value: float) -> str:
    """A float of C that is exactly this number in 32 bits."""
    rounded = float(np.float32(value))
    if math.isinf(rounded):
        return "INFINITY" if rounded > 0 else "-INFINITY"
    text = f"{rounded:.9g}"
    return f"{text if any(letter in text for letter in '.en') else text + '.0'}f" if not math.isnan(rounded) else "NAN"


def _elementwise(program: Program, node: ir.Node, text: str, *, inputs: int | None = None) -> None:
    parts = [program.place(value) for value in (node.inputs[:inputs] if inputs else node.inputs)]
    target = program.result(node.outputs[0], node, over=node.inputs[:inputs] if inputs else node.inputs)
    names = {name: program.use(name) for name in ("erf", "sigmoid") if f"{{{name}}}" in text}

    def body(index: list[str]) -> list[str]:
        elements = [part.at(own) for part, own in zip(parts, index[1:], strict=True)]
        return [f"{target.at(index[0])} = {text.format(*elements, **names)};"]

    walks = [target.strides, *(broadcast(part.shape, part.strides, target.shape) for part in parts)]
    program.lines += loops(target.shape, walks, body)

"""The two files of a model: `model.h`, which a program includes, and `model.c`, which is compiled with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from exporters.c_code.elementwise import number
from exporters.c_code.fast_math import FAST, fast
from exporters.c_code.graph import kind_of, shape_of
from exporters.c_code.kernels import KERNELS, with_needed
from exporters.c_code.names import identifier
from exporters.c_code.program import Program, safe
from exporters.c_code.sources import Field, Sources
from exporters.c_code.writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from compressor.report import StreamInfo
    from exporters.c_code.graph import Place
    from exporters.c_code.program import Constant
    from exporters.c_code.rounding import Rounding

_A_LINE = 12


def write(
    model: ir.Model,
    name: str,
    info: StreamInfo | None,
    *,
    rounding: Rounding | None,
    facts: Sequence[str],
    fast_math: bool = False,
) -> Sources:
    """C99 of a graph whose sizes are all known.

    Args:
        model: The graph.
        name: Of the file, without its ending; public names begin with what C allows of it.
        info: How a step carries its states; None for a whole sequence.
        rounding: Of the weights; None leaves them float.
        facts: Lines of the comment at the top of both files.
        fast_math: Whether exp, tanh and sigmoid are those of `fast_math`.

    Raises:
        ExportError: An operator, a type or a size has no C.
    """
    header_name, name = f"{name}.h", identifier(name.removesuffix(".step"))
    call = f"{name}_step" if info else f"{name}_run"
    carried = {state.name: state for state in info.states} if info else {}
    following = {state.next_name for state in info.states} if info else set()
    taken: set[str] = set()
    inputs = [_field(value, taken) for value in model.graph.inputs if value.name not in carried]
    outputs = [_field(value, taken) for value in model.graph.outputs if value.name not in following]
    states = [
        _field(value, taken, initial=carried[value.name].initial)
        for value in model.graph.inputs
        if value.name in carried
    ]
    arguments = {item.title: item.name for item in inputs} | {item.title: f"s->{item.name}" for item in states}
    program = Program(model.graph, arguments, {item.title: item.name for item in outputs}, WRITERS, rounding=rounding)
    unread = {value.name for value in model.graph.inputs if not value.uses() and not value.is_graph_output()}
    starts = [f"(void){item.name};" for item in inputs if item.title in unread]
    ends = [_end(program.results[item.title], item.name, item.size) for item in outputs]
    for item in states:
        ends.append(_end(program.results[carried[item.title].next_name], f"s->{item.name}", item.size))
    return Sources(
        name,
        call,
        header_name,
        _header(name, call, inputs, outputs, states, program, facts, info),
        _code(
            name, call, header_name, inputs, outputs, states, program, starts, [*filter(None, ends)], facts, fast_math
        ),
        tuple(inputs),
        tuple(outputs),
        tuple(states),
        _struct_bytes(states, program),
        tuple(program.constants.values()),
        program.operators,
    )


def _struct_bytes(states: Sequence[Field], program: Program) -> int:
    words = sum(item.size for item in states) + max(program.floats, 1) + program.integers + program.blocks
    whole = program.whole * (1 if program.whole_type == "int8_t" else 2)
    return 4 * (words + -(-whole // 4))


def _field(value: ir.Value, taken: set[str], *, initial: Any = 0.0) -> Field:
    title = value.name or ""
    plain = identifier(title)
    name, number_ = plain, 2
    while name in taken:
        name, number_ = f"{plain}_{number_}", number_ + 1
    taken.add(name)
    return Field(name, title, kind_of(value, f"`{title}`"), shape_of(value, f"`{title}`"), initial)


def _end(place: Place, target: str, size: int) -> str:
    if place.pointer == target:
        return ""
    return f"memcpy({target}, {place.pointer}, {size} * sizeof({place.kind}));"


def _prototype(name: str, call: str, inputs: Sequence[Field], outputs: Sequence[Field]) -> str:
    arguments = [f"{name}_state *s", *(f"const {item.kind} *{item.name}" for item in inputs)]
    return f"void {call}({', '.join([*arguments, *(f'{item.kind} *{item.name}' for item in outputs)])})"


def _comment(lines: Sequence[str]) -> str:
    return "/*\n" + "\n".join(f" * {safe(line)}".rstrip() for line in lines) + "\n */\n"


def _header(
    name: str,
    call: str,
    inputs: Sequence[Field],
    outputs: Sequence[Field],
    states: Sequence[Field],
    program: Program,
    facts: Sequence[str],
    info: StreamInfo | None,
) -> str:
    guard = f"{name.upper()}_H"
    fields = [f"    {item.kind} {item.name}[{item.size}]; /* {_sizes(item)} */" for item in states]
    fields.append(f"    float w[{max(program.floats, 1)}]; /* work area; nothing in it is kept */")
    if program.integers:
        fields.append(f"    int32_t v[{program.integers}]; /* the same for integers */")
    if program.blocks:
        fields.append(f"    int32_t z[{program.blocks}]; /* the sums of their blocks */")
    if program.whole:
        fields.append(f"    {program.whole_type} q[{program.whole}]; /* the inputs of a product as whole numbers */")
    sizes = [
        f"#define {name.upper()}_{item.name.upper()}_SIZE {item.size} /* {way}: {_sizes(item)} */"
        for way, items in (("in", inputs), ("out", outputs))
        for item in items
    ]
    what = (
        "One step of a stream: the states in `s` are carried on."
        if info
        else "One whole sequence; nothing is carried on."
    )
    return (
        f"#ifndef {guard}\n#define {guard}\n\n{_comment(facts)}\n#include <stdint.h>\n\n#ifdef __cplusplus\n"
        f'extern "C" {{\n#endif\n\n' + "\n".join(sizes) + "\n\n/* All the memory that the model writes to. */\n"
        "typedef struct {\n" + "\n".join(fields) + f"\n}} {name}_state;\n\n"
        f"/* The state before the first step. */\nvoid {name}_init({name}_state *s);\n\n"
        f"/* {what} Arrays must not overlap. */\n{_prototype(name, call, inputs, outputs)};\n\n"
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif\n"
    )


def _sizes(item: Field) -> str:
    return safe(f"{item.title}, {' x '.join(map(str, item.shape)) or 'one number'}")


def _code(
    name: str,
    call: str,
    header_name: str,
    inputs: Sequence[Field],
    outputs: Sequence[Field],
    states: Sequence[Field],
    program: Program,
    starts: Sequence[str],
    ends: Sequence[str],
    facts: Sequence[str],
    fast_math: bool,
) -> str:
    constants = "\n".join(_constant(item) for item in program.constants.values())
    start, initial = _initial(states)
    body = "\n".join(f"    {line}" if line else "" for line in (*_work(program), *starts, *program.lines, *ends))
    known = dict(KERNELS)
    if fast_math:
        known, body = {**FAST, **{name: fast(text) for name, text in known.items() if name not in FAST}}, fast(body)
    kernels = "\n".join(known[kernel].lstrip("\n") for kernel in with_needed(known, body))
    return (
        f'{_comment(facts)}\n#include "{header_name}"\n\n'
        "#include <math.h>\n#include <stddef.h>\n#include <string.h>\n\n"
        f"{constants}{initial}\n{kernels}\n"
        f"void {name}_init({name}_state *s)\n{{\n    memset(s, 0, sizeof *s);\n{start}}}\n\n"
        f"{_prototype(name, call, inputs, outputs)}\n{{\n{body}\n}}\n"
    )


def _work(program: Program) -> list[str]:
    lines = ["float *const w = s->w;"] if program.floats else []
    return [*lines, *(["int32_t *const v = s->v;"] if program.integers else []), *(["(void)s;"] if not lines else [])]


def _initial(states: Sequence[Field]) -> tuple[str, str]:
    """Statements of the init function, and the tables that they read."""
    lines: list[str] = []
    tables: list[str] = []
    for item in states:
        if isinstance(item.initial, tuple):
            table = np.array(item.initial, np.float32 if item.kind == "float" else np.int32)
            tables.append(f"static const {item.kind} initial_{item.name}[{item.size}] = {{\n{_numbers(table)}}};\n")
            lines.append(f"    memcpy(s->{item.name}, initial_{item.name}, sizeof initial_{item.name});\n")
        elif item.initial:
            value = number(item.initial) if item.kind == "float" else str(int(item.initial))
            lines.append(
                f"    for (int i = 0; i < {item.size}; ++i) {{\n        s->{item.name}[i] = {value};\n    }}\n"
            )
    return "".join(lines), "".join(tables)


def _constant(item: Constant) -> str:
    declared = f"static const {item.type} {item.name}[{item.array.size}]"
    return f"/* {item.comment} */\n{declared} = {{\n{_numbers(item.array)}}};\n"


def _numbers(array: NDArray[Any]) -> str:
    flat = array.ravel().tolist()
    texts = [number(value) for value in flat] if array.dtype == np.float32 else [str(value) for value in flat]
    if not texts:
        raise ExportError("the model has an empty constant, which C has no array for", hint="use `format: ort`")
    rows = [", ".join(texts[start : start + _A_LINE]) for start in range(0, len(texts), _A_LINE)]
    return "".join(f"    {row},\n" for row in rows)

"""A program for a board: a model's C, the little that starts and calls it, and a test that does not count."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from compressor.runtimes.microcontroller.boards import Board, Tools

FIRMWARE: Final = Path(__file__).with_name("firmware")
WARNINGS: Final = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
_COMMON: Final = ("-mthumb", "-mfloat-abi=hard", "-ffunction-sections", "-fdata-sections", "-ffp-contract=fast")
_SECONDS: Final = 300.0
_COUNTED: Final = {"flash": (".text", ".rodata", ".ARM.exidx", ".data"), "ram": (".data", ".bss")}
_DTYPES: Final = {"float": np.float32, "int32_t": np.int32}


@dataclass(frozen=True)
class Array:
    """An argument of the model's function."""

    name: str
    kind: str
    """The C type of its elements."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def dtype(self) -> Any:
        """Of NumPy."""
        return _DTYPES[self.kind]


@dataclass(frozen=True)
class Code:
    """A generated file and how it is called."""

    path: Path
    """The `.c` file; its header lies beside it."""
    header: str
    name: str
    """What its public names begin with."""
    call: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]

    @classmethod
    def of(cls, path: Path, about: Mapping[str, Any]) -> Code:
        """From what the exporter wrote about it."""
        arrays = [
            tuple(Array(f"{way}{place}", item[1], tuple(item[2])) for place, item in enumerate(about[f"{way}puts"]))
            for way in ("in", "out")
        ]
        name = about["init"].removesuffix("_init")
        return cls(path, path.with_suffix(".h").name, name, about["call"], arrays[0], arrays[1])


@dataclass(frozen=True)
class Call:
    """One call of the function."""

    inputs: Sequence[NDArray[Any]]
    reset: bool = False
    """Whether the state is made new before it."""


@dataclass(frozen=True)
class Image:
    """A linked program."""

    path: Path
    flash_bytes: int
    """Code, constants and initial values; without the test."""
    ram_bytes: int
    """Data, zeroed data; without the stack."""


def build(
    code: Code, calls: Sequence[Call], board: Board, tools: Tools, folder: Path, *, flags: Sequence[str] = ("-Os",)
) -> Image:
    """Compile and link a program that makes these calls.

    Raises:
        ExportError: The compiler or the linker refuses, which its last lines tell.
    """
    for name in ("start.c", "test.c", "board.ld"):
        shutil.copyfile(FIRMWARE / name, folder / name)
    (folder / "program.c").write_text(_program(code), encoding="ascii")
    (folder / "values.c").write_text(_values(code, calls), encoding="ascii")
    for place, _ in enumerate(code.inputs):
        parts = [np.ascontiguousarray(call.inputs[place], code.inputs[place].dtype).tobytes() for call in calls]
        (folder / f"in{place}.bin").write_bytes(b"".join(parts))
    compile_ = [tools.compiler, *board.flags, *_COMMON]
    what = f"{Path(tools.compiler).name} on {code.path.name}"

    def compiled(source: Path, *options: str) -> str:
        target = folder / f"{source.stem if source.parent == folder else 'model'}.o"
        command = [*compile_, *options, f"-I{folder}", f"-I{code.path.parent}", "-c", "-o", str(target), str(source)]
        child.run(command, seconds=_SECONDS, what=what)
        return str(target)

    objects = [
        compiled(code.path, *WARNINGS, *flags),
        compiled(folder / "program.c", *WARNINGS, *flags),
        compiled(folder / "start.c", "-std=gnu99", "-Os", "-Wall", "-Werror"),
        compiled(folder / "test.c", "-std=gnu99", "-O1", "-Wall", "-Werror"),
        compiled(folder / "values.c", "-std=gnu99", "-O1", "-Wall", "-Werror"),
    ]
    image = folder / "program.elf"
    link = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", f"-Wl,-T,{folder / 'board.ld'}"]
    child.run([*compile_, *link, "-o", str(image), *objects, "-lm"], seconds=_SECONDS, what=what)
    sizes = _sections(tools, image)
    counted = {kind: sum(sizes.get(name, 0) for name in names) for kind, names in _COUNTED.items()}
    return Image(image, counted["flash"], counted["ram"])


def _program(code: Code) -> str:
    """What a user's program has at least: the state, and the inputs and outputs of a call."""
    arrays = (*code.inputs, *code.outputs)
    declared = "".join(f"{item.kind} program_{item.name}[{max(item.size, 1)}];\n" for item in arrays)
    arguments = ", ".join(["&state", *(f"program_{item.name}" for item in arrays)])
    return (
        f'#include "{code.header}"\n\nvoid program_init(void);\nvoid program_call(void);\n\n'
        f"static {code.name}_state state;\n{declared}\n"
        f"void program_init(void)\n{{\n    {code.name}_init(&state);\n}}\n\n"
        f"void program_call(void)\n{{\n    {code.call}({arguments});\n}}\n"
    )


def _values(code: Code, calls: Sequence[Call]) -> str:
    """What the test gives and reads; the values themselves lie in files of bytes."""
    lines = ["#include <stddef.h>", "#include <stdint.h>", ""]
    lines.append("typedef struct { void *at; const uint32_t *all; uint32_t words; } Array;")
    for place, item in enumerate(code.inputs):
        section = '.section .values, \\"a\\"\\n.balign 4'
        lines.append(f'__asm("{section}\\nvalues{place}:\\n.incbin \\"in{place}.bin\\"\\n.previous");')
        lines.append(f"extern const uint32_t values{place}[]; extern {item.kind} program_{item.name}[];")
    lines += [f"extern {item.kind} program_{item.name}[];" for item in code.outputs]
    for way, items in (("input", code.inputs), ("output", code.outputs)):
        rows = [
            f"{{program_{item.name}, {f'values{place}' if way == 'input' else 'NULL'}, {item.size}u}}"
            for place, item in enumerate(items)
        ]
        lines.append(f"const Array test_{way}s[] = {{{', '.join(rows) or '{NULL, NULL, 0u}'}}};")
        lines.append(f"const uint32_t test_{way}_count = {len(items)}u;")
    lines.append(f"const uint32_t test_calls = {len(calls)}u;")
    lines.append(f"const uint8_t test_resets[] = {{{', '.join(str(int(call.reset)) for call in calls)}}};")
    return "\n".join(lines) + "\n"


def _sections(tools: Tools, image: Path) -> dict[str, int]:
    """Name of a section -> its bytes."""
    said = child.run([tools.size, "-A", str(image)], seconds=_SECONDS, what=Path(tools.size).name)
    rows = [line.split() for line in said.splitlines() if line.startswith(".")]
    return {row[0]: int(row[1]) for row in rows}
